"""Images: built of containers/*.def, tested, recorded, and checked before they run.

In: this clone (source.py). Out: FILE, one SIF; FILE.json, its SHA-256 and what it was made of; FILE.cdx.json,
every package in it (sbom.py). A build needs no root. All three are written aside and renamed, so FILE is
always a whole image that has passed its test. Only this file builds, tests and inspects with apptainer.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import hpcscale
from hpcscale.cluster import records, sbom, source
from hpcscale.cluster.mirror import debian_mirror
from hpcscale.cluster.storage import BUILD
from hpcscale.files import Told, check_output, marked, remove_asides, replacing, write_file
from hpcscale.progress import Say

# Lines of a build's output that are shown: the steps of install/image.sh, and of apptainer.
STEPS = ("==> ", "INFO:    ")
# Nothing of this machine may get into the image: /tmp and the home folder are empty and in memory.
ALONE = ("--cleanenv", "--contain", "--no-mount", "home,cwd", "--pwd", "/")


class ImageError(Told):
    """An image that cannot be built, does not work, or is not the one that was recorded."""


class Recipe(NamedTuple):
    """What `apptainer build` is given, beside the labels."""

    file: Path  # a .def
    binds: list[str]
    arguments: dict[str, str]  # of the recipe


def build(
    kind: str,
    out: Path,
    *,
    mirror: str | None = None,
    sign: bool = False,
    fresh: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Make the image `out` of this clone as it is, and return its record.

    An existing `out` saves time: it is left alone if it was made of the same source, and only gets new Python
    files if nothing else has changed. fresh: build from nothing even so. mirror: of Debian; by default the
    one that apt uses here. Raises ImageError, SourceError and MirrorError.
    """
    clone, out = source.root(), out.absolute()
    _check(out)
    with tempfile.TemporaryDirectory(prefix="hpcscale-image-", dir=_temporary(kind)) as name:
        work = Path(name)
        image, copy = work / out.name, work / "source"
        source.copy(clone, copy)  # what is built, even if the clone is edited meanwhile
        digests = {"source": source.digest(copy), "environment": source.environment(copy, kind)}
        before = None if fresh else _before(out)
        if before and before["source"] == digests["source"] and before["signed"] >= sign:
            say(f"{out} is made of this source already")
            return before
        labels = {
            "version": hpcscale.__version__,
            "revision": source.commit(clone) or "unknown",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "constraints": source.sha256(copy / "constraints.txt"),
        }
        onto = before is not None and before["environment"] == digests["environment"]
        recipe = _onto(out, copy) if onto else _whole(kind, copy, mirror, say)
        with _clock(say, "image has its new Python files" if onto else "image is built"):
            _build(recipe, labels, image, work, say)
        with _clock(say, "image is tested"):
            test(image)
        if sign:
            _call(apptainer(), "sign", str(image), terminal=True)
        with _clock(say, "image is recorded"):
            bill = _bill_of(image, labels | {"title": f"hpcscale-{kind}"})
            record = {
                "image": out.name,
                "sha256": source.sha256(image),
                "bytes": image.stat().st_size,
                "kind": kind,
                **labels,
                **digests,
                "apptainer": _call(apptainer(), "--version").strip().rpartition(" ")[2],
                "signed": sign,
            }
            _publish(image, out, record, bill)
    return record


def test(image: Path) -> str:
    """Run the image's own %test and return what it prints. Raises ImageError."""
    return _call(apptainer(), "test", *ALONE, str(image))


def verify(image: Path) -> dict[str, Any]:
    """Compare an image with its record, bit by bit; check its signature; return the record. ImageError."""
    record = _read(image)
    found = source.sha256(image)
    if found != record["sha256"]:
        raise ImageError(
            f"{image} is not the image that was recorded: SHA-256 is {found}, {_record(image).name} has "
            f"{record['sha256']}"
        )
    if record["signed"]:
        _call(apptainer(), "verify", str(image))
    return record


def info(image: Path) -> dict[str, Any]:
    """The record of an image; without a record, the labels in the image. Does not check the image."""
    if _record(image).exists():
        return _read(image)
    labels = _told(_call(apptainer(), "inspect", "--json", "--labels", str(image)))
    for key in ("data", "attributes", "labels"):
        labels = labels.get(key) or {}
        if not isinstance(labels, dict):
            raise ImageError(f"{image}: apptainer inspect tells no labels, but {labels!r:.80}")
    return labels


def apptainer() -> str:
    """The program that runs images. Raises ImageError."""
    found = shutil.which("apptainer") or shutil.which("singularity")
    if not found:
        raise ImageError("no 'apptainer' on PATH: load your site's module, or install it")
    return found


def _check(out: Path) -> None:
    """Refuse what cannot be done before anything is downloaded. Raises ImageError and OutputError."""
    if not out.parent.is_dir():
        raise ImageError(f"{out}: must be a file in a folder that is there")
    check_output(out, ours=lambda file: _record(file).exists() or marked(b"SIF_MAGIC")(file))
    check_output(_record(out), ours=marked(b'"environment": '))
    check_output(_bill(out), ours=marked(b"CycloneDX"))
    apptainer()  # fails before anything is downloaded


def _onto(out: Path, copy: Path) -> Recipe:
    """The existing image, and the Python files of the source copy."""
    return Recipe(copy / "containers" / "update.def", [f"{copy}:/mnt:ro"], {"image": str(out)})


def _whole(kind: str, copy: Path, mirror: str | None, say: Say) -> Recipe:
    """An image from nothing; its packages are downloaded. Raises ImageError, SourceError and MirrorError."""
    if not shutil.which("debootstrap", path=_path()):
        raise ImageError("no 'debootstrap' here, of which the image's Debian comes: install it")
    arguments = {"mirror": mirror or debian_mirror()}
    with _clock(say, "packages are downloaded"):
        wheels = source.wheels(copy, kind)
    binds = [f"{copy}:/mnt:ro", f"{wheels}:/media:ro", f"{source.cache()}:/srv"]
    return Recipe(copy / "containers" / f"hpcscale-{kind}.def", binds, arguments)


def _build(recipe: Recipe, labels: dict[str, str], image: Path, work: Path, say: Say) -> None:
    command = [apptainer(), "build", "--notest", "--mksquashfs-args", "-comp zstd -Xcompression-level 3"]
    for bind in recipe.binds:
        command += ["--bind", bind]
    for name, value in (labels | recipe.arguments).items():
        command += ["--build-arg", f"{name}={value}"]
    variables = {"PATH": _path(), "APPTAINER_TMPDIR": str(work), "SINGULARITY_TMPDIR": str(work)}
    log, begin = work / "build.log", time.monotonic()
    with (
        open(log, "w") as output,
        subprocess.Popen(
            [*command, str(image), str(recipe.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment() | variables,
        ) as process,
    ):
        for line in process.stdout or ():
            output.write(line)
            if line.startswith(STEPS):
                say(f"{time.monotonic() - begin:5.0f} s  {line.removeprefix(STEPS[1]).strip()}")
    if process.returncode:
        tail = "\n".join(log.read_text().splitlines()[-40:])
        raise ImageError(f"{tail}\n{recipe.file.name} could not be built; apptainer's log ends as above")


def _environment() -> dict[str, str]:
    """This shell's environment, without what would put the user's folders or variables into an image."""
    bad = re.compile(r"(APPTAINER|SINGULARITY)(ENV_|_BIND|_MOUNT)")
    return {name: value for name, value in os.environ.items() if not bad.match(name)}


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # where debootstrap is installed


@contextmanager
def _clock(say: Say, what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - begin:.0f} s")


def _call(*command: str, terminal: bool = False) -> str:
    """What a program prints; with `terminal`, it may ask for a passphrase. Raises ImageError."""
    both = None if terminal else subprocess.PIPE
    done = subprocess.run(command, stdout=both, stderr=both, text=True, errors="replace", env=_environment())
    if done.returncode:
        tail = "\n".join(f"{done.stdout or ''}{done.stderr or ''}".splitlines()[-30:])
        raise ImageError(
            f"{tail}\n{Path(command[0]).name} {command[1]}: exit code {done.returncode}".lstrip()
        )
    return done.stdout or ""


def _told(text: str) -> dict[str, Any]:
    """The JSON object in what a program printed; a site's wrapper may have printed something before it."""
    for begin in (index for index, letter in enumerate(text) if letter == "{"):
        try:
            found = json.JSONDecoder().raw_decode(text, begin)[0]
        except (ValueError, RecursionError):
            continue
        return dict(found)
    raise ImageError(f"apptainer printed no JSON, but {text[:200]!r}")


def _record(image: Path) -> Path:
    return image.with_name(f"{image.name}.json")


def _bill(image: Path) -> Path:
    return image.with_name(f"{image.name}.cdx.json")


def _read(image: Path) -> dict[str, Any]:
    file = _record(image)
    try:
        record = records.read_json(file)
    except (FileNotFoundError, records.DamagedError) as error:
        raise ImageError(f"{image} has no record that can be read: {error}") from None
    if missing := {"sha256", "source", "environment", "signed"} - set(record):
        raise ImageError(f"{file} is not the record of an image: no {', '.join(sorted(missing))} in it")
    return dict(record)


def _before(out: Path) -> dict[str, Any] | None:
    """The record of the existing image, if it can be trusted."""
    try:
        return verify(out)
    except (ImageError, OSError):
        return None


def _bill_of(image: Path, labels: dict[str, str]) -> dict[str, Any]:
    """Every package in an image, as it lists them itself."""
    python = ("/usr/bin/env", "python", "-c", sbom.LIST)
    return sbom.bill(_told(_call(apptainer(), "exec", *ALONE, str(image), *python)), labels)


def _publish(image: Path, out: Path, record: dict[str, Any], bill: dict[str, Any]) -> None:
    """Give a finished image its name, with its record and its bill of materials beside it."""
    remove_asides(out)
    with replacing(out) as temporary:
        shutil.move(image, temporary)  # from another disk, perhaps
        write_file(_bill(out), (json.dumps(bill, indent=1) + "\n").encode())
        # For a moment the record is newer than the image; a job that starts just then is refused.
        write_file(_record(out), (json.dumps(record, indent=1) + "\n").encode())


def _temporary(kind: str) -> str:
    """Where a build puts gigabytes: not /tmp, which is often small, or in memory."""
    folder = os.environ.get("APPTAINER_TMPDIR") or os.environ.get("SINGULARITY_TMPDIR") or "/var/tmp"
    free = shutil.disk_usage(folder).free
    if free < BUILD[kind]:
        raise ImageError(
            f"{folder} has {free / 1e9:.1f} GB free, and a build takes {BUILD[kind] / 1e9:.0f}: name a "
            "folder on a larger local disk in APPTAINER_TMPDIR"
        )
    return folder
