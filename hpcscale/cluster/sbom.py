"""The bill of materials of an image, for vulnerability scanners: CycloneDX 1.6 in JSON.

In: the installed Python and Debian packages, as LIST prints them in the image. Out: the document. Identifiers
are package URLs (https://github.com/package-url/purl-spec).
"""

import uuid
from typing import Any
from urllib.parse import quote

# Runs in the image, with the image's Python, and uses nothing of hpcscale.
LIST = r"""
import json, subprocess
from importlib.metadata import distributions

def licence(about):
    kinds = [name.split(" :: ")[-1] for name in about.get_all("Classifier") or () if "License :: " in name]
    return about.get("License-Expression") or (kinds[0] if kinds else None)

python = [(d.name, d.version, licence(d.metadata)) for d in distributions()]
form = "${Package}\t${Version}\t${Architecture}\n"
packages = subprocess.check_output(["dpkg-query", "-W", "-f", form], text=True)
system = [line.split("\t") for line in packages.splitlines()]
release = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
distribution = [release[key].strip('"') for key in ("ID", "VERSION_ID")]
print(json.dumps({"python": python, "system": system, "distribution": distribution}))
"""


def bill(listed: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """The document. listed: what LIST printed; labels: title, version, revision and created of the image."""
    name = f"pkg:generic/{labels['title']}@{labels['version']}"
    components = [_python(*row) for row in listed["python"]]
    components += [_system(row, listed["distribution"]) for row in listed["system"]]
    by_reference = {component["bom-ref"]: component for component in components}  # each once
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": labels["created"],
            "component": {
                "type": "container",
                "bom-ref": name,
                "name": labels["title"],
                "version": labels["version"],
                "properties": [{"name": "hpcscale:revision", "value": labels["revision"]}],
            },
        },
        "components": [by_reference[reference] for reference in sorted(by_reference)],
    }


def _python(name: str, version: str, licence: str | None) -> dict[str, Any]:
    name = name.lower().replace("_", "-").replace(".", "-")
    licences = {"licenses": [{"license": {"name": licence}}]} if licence else {}
    return _component(name, version, f"pkg:pypi/{name}@{quote(version, safe='')}") | licences


def _system(row: list[str], distribution: list[str]) -> dict[str, Any]:
    name, version, machine = row
    system, release = distribution
    at = f"{quote(version, safe='')}?arch={machine}&distro={system}-{release}"
    return _component(name, version, f"pkg:deb/{system}/{quote(name, safe='')}@{at}")


def _component(name: str, version: str, reference: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}
