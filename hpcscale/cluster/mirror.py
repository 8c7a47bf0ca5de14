"""The Debian mirror that this machine uses, so that no recipe has to name one.

In: apt's sources, in both of their formats. Out: the URL for `debootstrap`.
"""

from collections.abc import Iterator
from pathlib import Path

from hpcscale.files import Told

APT = Path("/etc/apt")
SUITE = "bookworm"  # of containers/hpcscale-cpu.def


class MirrorError(Told):
    """apt on this machine knows no Debian mirror."""


def debian_mirror(apt: Path = APT) -> str:
    """The mirror for the image's suite; else that for another suite of Debian. Raises MirrorError."""
    found = [
        entry for file in _files(apt) for entry in (_stanzas if file.suffix == ".sources" else _lines)(file)
    ]
    debian = [(uri, suite) for uri, suite in found if uri.rstrip("/").endswith("/debian")]
    for uri, suite in sorted(debian, key=lambda entry: entry[1] != SUITE):
        if suite == SUITE or "-" not in suite:  # a mirror of bookworm-updates may not have bookworm
            return uri.rstrip("/")
    raise MirrorError(f"no Debian mirror in {apt}: name one with --mirror, as http://HOST/debian")


def _files(apt: Path) -> list[Path]:
    folder = apt / "sources.list.d"
    files = [apt / "sources.list", *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]
    return [file for file in files if file.is_file()]


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """deb [options] URI SUITE COMPONENTS"""
    for line in file.read_text().splitlines():
        before, bracket, after = line.partition("#")[0].partition("[")
        words = (before + (after.partition("]")[2] if bracket else "")).split()
        if len(words) >= 3 and words[0] == "deb":
            yield words[1], words[2]


def _stanzas(file: Path) -> Iterator[tuple[str, str]]:
    """Stanzas with Types, URIs, Suites, Enabled; values may go on in indented lines"""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    for stanza in "\n".join(lines).split("\n\n"):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in stanza.splitlines():
            if not line[:1].isspace():
                name, _, line = line.partition(":")
            fields.setdefault(name.lower(), []).extend(line.split())
        if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
            yield from ((uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", []))
