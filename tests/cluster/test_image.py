"""Images, with an apptainer that only writes down what it was asked for; tests/live builds a real one."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import ROOT

from hpcscale.cli import main
from hpcscale.cluster import sbom, source, templates
from hpcscale.cluster.image import ImageError, build, verify
from hpcscale.cluster.mirror import MirrorError, debian_mirror

LISTED = {
    "python": [
        ["Jinja2", "3.1.6", None],
        ["torch", "2.13.0+cpu", "BSD-3-Clause"],
        ["torch", "2.13.0+cpu", None],
    ],
    "system": [["libc6", "2.36-9+deb12u10", "amd64"], ["g++", "4:12.2.0-3", "amd64"]],
    "distribution": ["debian", "12"],
}
# Its images hold the number of the call that built them.
FAKE = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
for last; do :; done
case $1 in
    --version) echo "apptainer version 9.8.7" ;;
    build)
        [ -z "$FAIL_BUILD" ] || { echo "FATAL: no space"; exit 255; }
        echo "==> packages"; echo "noise"
        cp -r "$(dirname "$last")/.." "$CALLS.source"
        wc -l <"$CALLS" >"${@: -2:1}" ;;
    test) [ -z "$FAIL_TEST" ] || { echo "decoding: broken"; exit 1; } ;;
    exec) echo "$LISTED" ;;
    sign) echo signed >>"$last" ;;
    verify) grep -q signed "$last" ;;
    inspect) echo '{"data": {"attributes": {"labels": {"org.opencontainers.image.version": "7"}}}}' ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with little in it, its packages downloaded, and the fake apptainer on PATH."""
    clone = tmp_path / "clone"
    for name in (*source.PYTHON, *source.COMPILED):
        file = clone / name if "." in name or name == "LICENSE" else clone / name / "file"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    for name in ("hpcscale-cpu", "hpcscale-cuda", "update"):
        (clone / "containers" / f"{name}.def").write_text(name)
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(FAKE)
    (program.parent / "debootstrap").touch()
    for file in program.parent.iterdir():
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(templates, "containers", lambda: clone / "containers")
    monkeypatch.setattr(source, "wheels", lambda root, kind: tmp_path / "wheels")
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "APPTAINER_TMPDIR": str(tmp_path),
        "HPCSCALE_CACHE": str(tmp_path / "cache"),
        "CALLS": str(tmp_path / "calls"),
        "LISTED": json.dumps(LISTED),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return clone


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["image", *map(str, words)])


def built(tmp_path: Path) -> list[str]:
    """The build commands so far."""
    return [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("build ")]


def test_an_image_is_built_tested_and_recorded(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.sif"
    (clone / "hpcscale" / "__pycache__").mkdir()
    (clone / "hpcscale" / "_ops.so").touch()
    (tmp_path / f"a.sif.{socket.gethostname()}-12345678.tmp").touch()  # of a build that was killed
    done = run("build", "cpu", "--out", out, "--mirror", "http://mirror/debian")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n"
    assert re.search(r"^ +\d+ s  ==> packages$", done.stderr, re.MULTILINE)
    assert "noise" not in done.stderr

    [command] = built(tmp_path)
    assert "--build-arg mirror=http://mirror/debian" in command
    assert f"--bind {tmp_path / 'wheels'}:/media:ro --bind {tmp_path / 'cache'}:/srv" in command
    assert command.endswith("/source/containers/hpcscale-cpu.def")
    copied = {
        str(file.relative_to(f"{tmp_path}/calls.source"))
        for file in Path(f"{tmp_path}/calls.source").rglob("*")
    }
    assert {"hpcscale/file", "cpp/file", "setup.py"} <= copied
    assert not {"hpcscale/__pycache__", "hpcscale/_ops.so"} & copied

    record = json.loads((tmp_path / "a.sif.json").read_text())
    assert record["sha256"] == source.sha256(out)
    assert record["constraints"] == source.sha256(clone / "constraints.txt")
    assert record["apptainer"] == "9.8.7"
    assert json.loads(run("info", "--json", out).stdout) == record
    assert run("verify", out).exit_code == run("test", out).exit_code == 0
    assert json.loads((tmp_path / "a.sif.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    assert not list(tmp_path.glob("hpcscale-image-*")) + list(tmp_path.glob("*.tmp"))


def test_only_what_has_changed_is_built_again(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.sif"

    def recipe() -> str | None:
        before = built(tmp_path) if (tmp_path / "calls").exists() else []
        build("cpu", out, mirror="http://mirror/debian")
        new = built(tmp_path)[len(before) :]
        return Path(new[0].split()[-1]).stem if new else None

    assert recipe() == "hpcscale-cpu"
    assert recipe() is None
    (clone / "hpcscale" / "file").write_text("new")
    assert recipe() == "update"
    assert f"--build-arg image={out}" in built(tmp_path)[-1]
    assert ":/media" not in built(tmp_path)[-1]
    assert recipe() is None
    (clone / "hpcscale" / "another").touch()
    assert recipe() == "update"
    (clone / "hpcscale" / "another").rename(clone / "hpcscale" / "renamed")
    assert recipe() == "update"
    for name in ("cpp/file", "constraints.txt", "install/file", "containers/hpcscale-cpu.def"):
        (clone / name).write_text("new")
        assert recipe() == "hpcscale-cpu", name
    (clone / "containers" / "hpcscale-cuda.def").write_text("new")
    assert recipe() == "update"
    # What is there is built on only if it is what was recorded.
    (clone / "hpcscale" / "file").write_text("newer")
    out.write_text("tampered with")
    assert recipe() == "hpcscale-cpu"
    build("cpu", out, mirror="http://mirror/debian", fresh=True)
    assert Path(built(tmp_path)[-1].split()[-1]).stem == "hpcscale-cpu"


def test_the_image_with_cuda_is_made_as_the_other(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.sif"
    record = build("cuda", out, mirror="http://mirror/debian")
    [command] = built(tmp_path)
    assert "--build-arg mirror=http://mirror/debian" in command
    assert command.endswith("/source/containers/hpcscale-cuda.def")
    assert record["kind"] == "cuda"
    cpu, cuda = ((ROOT / "containers" / f"hpcscale-{kind}.def").read_text() for kind in ("cpu", "cuda"))
    said = {"hpcscale-cuda": "hpcscale-cpu", "image.sh cuda": "image.sh cpu", "NVIDIA GPUs": "CPUs"}
    for mine, others in (said | {" --nv": ""}).items():
        assert mine in cuda
        cuda = cuda.replace(mine, others)
    assert cuda.partition("\nBootstrap")[2] == cpu.partition("\nBootstrap")[2]


def test_an_image_that_is_not_the_recorded_one_is_refused(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.sif"
    record = build("cpu", out, mirror="http://mirror/debian")
    with open(out, "ab") as stream:
        stream.write(b"\0")
    done = run("verify", out)
    assert done.exit_code == 1
    assert record["sha256"] in done.stderr
    assert source.sha256(out) in done.stderr
    (tmp_path / "a.sif.json").write_text('{"sha256": "0"}')
    with pytest.raises(ImageError, match="not the record of an image: no environment, signed, source in it"):
        verify(out)
    (tmp_path / "a.sif.json").unlink()
    assert run("verify", out).exit_code == 1
    assert "org.opencontainers.image.version" in run("info", out).stdout


@pytest.mark.parametrize(
    ("variable", "told"), [("FAIL_BUILD", "FATAL: no space"), ("FAIL_TEST", "decoding: broken")]
)
def test_what_fails_leaves_the_image_that_is_there(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, told: str
) -> None:
    out = tmp_path / "a.sif"
    build("cpu", out, mirror="http://mirror/debian")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("a.sif*")}
    (clone / "hpcscale" / "file").write_text("new")
    monkeypatch.setenv(variable, "1")
    done = run("build", "cpu", "--out", out)
    assert done.exit_code == 1
    assert told in done.stderr
    assert before == {file.name: file.read_bytes() for file in tmp_path.glob("a.sif*")}
    assert not list(tmp_path.glob("hpcscale-image-*"))


def test_a_signature_is_part_of_what_is_recorded_and_is_checked(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.sif"
    build("cpu", out, mirror="http://mirror/debian")
    build("cpu", out, mirror="http://mirror/debian", sign=True)
    assert verify(out)["signed"]
    record = json.loads((tmp_path / "a.sif.json").read_text())
    out.write_text("no more")
    (tmp_path / "a.sif.json").write_text(json.dumps(record | {"sha256": source.sha256(out)}))
    with pytest.raises(ImageError, match="apptainer verify"):
        verify(out)


def test_what_is_missing_is_told(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "in a folder that is there" in run("build", "cpu", "--out", tmp_path / "no" / "a.sif").stderr
    monkeypatch.setattr("hpcscale.cluster.image.BUILD", {"cpu": 1e18})
    assert "APPTAINER_TMPDIR" in run("build", "cpu", "--out", tmp_path / "a.sif").stderr
    monkeypatch.setattr("hpcscale.cluster.image.BUILD", {"cpu": 0})
    monkeypatch.setenv("PATH", "/nowhere")
    done = run("build", "cpu", "--out", tmp_path / "a.sif", "--mirror", "http://mirror/debian")
    assert done.exit_code == 1
    assert "no 'apptainer' on PATH" in done.stderr
    (clone / "CMakeLists.txt").unlink()
    assert "a clone of hpcscale" in run("build", "cpu").stderr


@pytest.mark.parametrize("missing", ["apptainer", "debootstrap"])
def test_nothing_is_downloaded_for_a_build_that_cannot_be(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    asked = []
    monkeypatch.setattr(source, "wheels", lambda root, kind: asked.append(kind))
    found = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **place: None if name == missing else found(name, **place)
    )
    done = run("build", "cpu", "--out", tmp_path / "a.sif", "--mirror", "http://mirror/debian")
    assert (done.exit_code, f"no '{missing}'" in done.stderr, asked) == (1, True, [])


def test_nothing_of_the_shell_gets_into_an_image(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("APPTAINER_BIND", "SINGULARITY_BINDPATH", "APPTAINERENV_PYTHONPATH", "SINGULARITYENV_A"):
        monkeypatch.setenv(name, "leaked")
    program = tmp_path / "bin" / "apptainer"
    program.write_text(program.read_text().replace('echo "$*" >>"$CALLS"', 'echo "$* $(env)" >>"$CALLS"'))
    build("cpu", tmp_path / "a.sif", mirror="http://mirror/debian")
    calls = (tmp_path / "calls").read_text()
    assert "APPTAINER_TMPDIR=" in calls
    assert "leaked" not in calls


@pytest.mark.parametrize("said", ["", "{", "[1]", '{"data": 3}', '{"data": {"attributes": [1]}}'])
def test_what_is_no_image_has_no_labels(clone: Path, tmp_path: Path, said: str) -> None:
    file = tmp_path / "a.sif"
    file.touch()
    (tmp_path / "bin" / "apptainer").write_text(f"#!/bin/sh\necho 'a {{site}} says hello'\necho '{said}'\n")
    done = run("info", file)
    assert done.exit_code == 1
    assert "apptainer" in done.stderr


def test_the_commit_is_known_where_git_knows_it(clone: Path) -> None:
    assert source.commit(clone) is None
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert source.commit(clone) == head
    (clone / "notes.txt").touch()
    assert source.commit(clone) == head
    (clone / "hpcscale" / "file").write_text("new")
    assert source.commit(clone) == head + "+"


def test_packages_are_named_as_scanners_know_them() -> None:
    labels = {
        "title": "hpcscale-cpu",
        "version": "1",
        "revision": "c",
        "created": "2026-01-01T00:00:00+00:00",
    }
    found = sbom.bill(LISTED, labels)
    assert [component["purl"] for component in found["components"]] == [
        "pkg:deb/debian/g%2B%2B@4%3A12.2.0-3?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
        "pkg:pypi/jinja2@3.1.6",
        "pkg:pypi/torch@2.13.0%2Bcpu",
    ]
    assert found["metadata"]["component"]["version"] == "1"


def test_the_list_of_packages_is_what_python_has() -> None:
    if not Path("/usr/bin/dpkg-query").exists():
        pytest.skip("no dpkg here")
    listed = json.loads(subprocess.check_output(["python3", "-c", sbom.LIST], text=True))
    assert {"dpkg", "libc6"} <= {name for name, _, _ in listed["system"]}
    assert len(listed["distribution"]) == 2


A, NO = "http://a/debian", "http://no/debian"


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("sources.list", f"deb {A} bookworm main\n", A),
        ("sources.list", f"# deb {NO} bookworm main\ndeb [arch=amd64 trusted=yes] {A}/ bookworm main", A),
        ("sources.list.d/x.list", f"deb {NO}-security bookworm-security main\ndeb {A} bookworm main", A),
        ("sources.list", f"deb {NO} trixie main\ndeb {A} bookworm main", A),
        ("sources.list", f"deb {NO} bookworm-updates main\ndeb {A} trixie main", A),
        (
            "sources.list.d/debian.sources",
            f"Types: deb\nURIs: {NO}\nSuites: bookworm\nEnabled: no\n\n"
            f"Types: deb-src\nURIs: {NO}\nSuites: bookworm\n\n"
            f"Types: deb deb-src\n# why\nURIs: {A}\n {NO}\nSuites: bookworm-updates bookworm\n",
            A,
        ),
    ],
)
def test_the_mirror_is_the_one_that_apt_uses(tmp_path: Path, name: str, text: str, mirror: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert debian_mirror(tmp_path) == mirror


def test_a_machine_without_debian_has_no_mirror(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://u/ubuntu noble main\n")
    with pytest.raises(MirrorError, match="--mirror"):
        debian_mirror(tmp_path)


def test_packages_are_downloaded_once_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two builds at the same time: the second waits, and finds what the first has brought."""
    clone = tmp_path / "clone"
    (clone / "install").mkdir(parents=True)
    for name in ("constraints.txt", "setup.py"):
        (clone / name).write_text("")
    script = clone / "install" / "wheels.sh"
    script.write_text(f"#!/bin/sh\necho once >> {tmp_path}/calls\nsleep 1\necho wheel > $1/a.whl\n")
    script.chmod(0o755)
    monkeypatch.setenv("HPCSCALE_CACHE", str(tmp_path / "cache"))
    for name, age in (("old", 2 * source.DAY), ("new", 0)):
        folder = tmp_path / "cache" / "wheels-cpu" / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    with ThreadPoolExecutor(2) as builds:
        found = {each.result() for each in [builds.submit(source.wheels, clone, "cpu") for _ in range(2)]}
    (folder,) = found
    assert (folder / "a.whl").read_text() == "wheel\n"
    assert (tmp_path / "calls").read_text() == "once\n"
    assert {each.name for each in folder.parent.iterdir()} == {".lock", "new", folder.name}
