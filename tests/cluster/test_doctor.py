"""doctor: every finding from a machine that has the fault, made of fake programs, files and system calls."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fake_slurm
import pytest
from click.testing import CliRunner
from findings import worst

from hpcscale.cli import main
from hpcscale.cluster import doctor, node, slurm, storage
from hpcscale.cluster.node import Finding

CONFIG = """echo "Configuration data as of $(date +%Y-%m-%dT%H:%M:%S)"
echo "MaxArraySize            = 5000"
echo "ProctrackType           = proctrack/cgroup"
"""
PROGRAMS = {
    "sbatch": "echo slurm 22.05.8",
    "squeue": "",
    "srun": "",
    "scontrol": CONFIG,
    "sinfo": "echo cpu; echo gpu",
    "apptainer": "echo apptainer version 1.4.5",
    "unshare": "",
    "squashfuse_ll": "",
}


class Machine:
    """A folder of programs that is all of PATH, a site and an image."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "bin"
        self.programs.mkdir()
        for name, script in PROGRAMS.items():
            self.program(name, script)
        self.image = folder / "image.sif"
        self.image.write_bytes(fake_slurm.SIF)
        self.record({"bytes": len(fake_slurm.SIF), "sha256": "ab", "kind": "cpu", "version": "1"})
        self.site('partition = "gpu"')

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (self.programs / name).chmod(0o755)

    def record(self, values: object) -> None:
        (self.folder / "image.sif.json").write_text(json.dumps(values))

    def site(self, more: str = "") -> None:
        (self.folder / "site.toml").write_text(f'image = "{self.image}"\n{more}\n')

    def examine(self, where: doctor.Where = "login node") -> list[Finding]:
        return doctor.examine(self.folder, str(self.folder / "site.toml"), where)

    def states(self, where: doctor.Where = "login node") -> dict[str, str]:
        """The worst of every check."""
        rank = {"ok": 0, "warning": 1, "problem": 2}
        found: dict[str, str] = {}
        for finding in self.examine(where):
            found[finding.check] = max(found.get(finding.check, "ok"), finding.state, key=rank.__getitem__)
            assert finding.advice or finding.state == "ok", finding
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(found.programs))
    for name in [*slurm.cleared(os.environ), "PYTHONPATH"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(storage, "LOCAL", set())
    monkeypatch.setattr(storage, "SPACE", 1.0)
    monkeypatch.setattr(storage, "BUILD", {"cpu": 1.0, "cuda": 2.0})
    monkeypatch.setattr(os, "access", lambda *arguments: True)
    return found


def test_a_sound_machine(machine: Machine) -> None:
    for where in ("login node", "compute node"):
        found = machine.states(where)  # type: ignore[arg-type]
        assert set(found.values()) == {"ok"}, machine.examine(where)  # type: ignore[arg-type]
        assert {
            "slurm",
            "apptainer",
            "user namespaces",
            "fuse",
            "image",
            "file system",
            "locks",
            "clock",
        } < set(found)
    assert {"gpu", "network", "limits"} < set(found)


def gone(*names: str) -> Callable[[Machine], None]:
    def fault(machine: Machine) -> None:
        for name in names:
            (machine.programs / name).unlink()

    return fault


def says(name: str, script: str) -> Callable[[Machine], None]:
    return lambda machine: machine.program(name, script)


AS_OF = "echo as of $(date -d '{}' +%FT%T)"
DENIED = "echo Operation not permitted >&2; exit 1"
FAULTS: dict[str, tuple[Callable[[Machine], object], str, str, str]] = {
    "no Slurm": (gone("sbatch"), "slurm", "problem", "no 'sbatch'"),
    "no controller": (says("scontrol", "echo No contact >&2; exit 1"), "slurm", "problem", "No contact"),
    "old Slurm": (says("sbatch", "echo slurm 20.11.9"), "slurm", "warning", "20.11"),
    "linuxproc": (says("scontrol", "echo ProctrackType = proctrack/linuxproc"), "slurm", "warning", "linux"),
    "clock": (says("scontrol", AS_OF.format("1 minute ago")), "clock", "warning", "controller"),
    "far clock": (says("scontrol", AS_OF.format("1 hour")), "clock", "problem", "controller"),
    "partition": (lambda m: m.site('[array]\npartition = "cpu,big"'), "partition", "problem", "big"),
    "old Apptainer": (says("apptainer", "echo apptainer version 1.0.3"), "apptainer", "problem", "1.0.3"),
    "no Apptainer": (gone("apptainer"), "apptainer", "warning", "no 'apptainer'"),
    "no namespaces": (says("unshare", DENIED), "user namespaces", "problem", "not permitted"),
    "no squashfuse": (gone("squashfuse_ll"), "fuse", "warning", "squashfuse"),
    "no image": (lambda m: m.image.unlink(), "image", "problem", "not here"),
    "no record": (lambda m: (m.folder / "image.sif.json").unlink(), "image", "problem", "no record"),
    "odd record": (lambda m: m.record([1]), "image", "problem", "no record"),
    "no digest": (lambda m: m.record({"bytes": 5}), "image", "problem", "no record"),
    "odd Apptainer": (says("apptainer", "echo a; echo odd; exit 1"), "apptainer", "problem", "odd"),
    "cut image": (lambda m: m.image.write_bytes(fake_slurm.SIF[:41]), "image", "problem", "recorded are"),
    "no image at all": (lambda m: m.image.write_bytes(b"#!/bin/sh\n" * 9), "image", "problem", "is no image"),
    "no bind": (lambda m: m.site('binds = ["/not/there:/data"]'), "binds", "problem", "/not/there:/data"),
    "no time": (lambda m: m.site('[array]\ntime = "1"'), "site", "problem", "stop_seconds = 120"),
    "no partitions": (
        lambda m: (m.site('partition = "cpu"'), m.program("sinfo", "echo No contact >&2; exit 1")),
        "partition", "warning", "No contact",
    ),
    "bad site": (lambda m: m.site("color = 1"), "site", "problem", "site.toml"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_found(machine: Machine, fault: str) -> None:
    make, check, state, said = FAULTS[fault]
    make(machine)
    worst = [f for f in machine.examine() if f.check == check and f.state == state]
    assert worst, machine.examine()
    assert said in worst[0].found + worst[0].advice
    others = {name: found for name, found in machine.states().items() if name != check}
    assert set(others.values()) == {"ok"}, others


def test_what_a_login_node_may_lack_a_compute_node_must_have(machine: Machine) -> None:
    gone("apptainer")(machine)
    assert machine.states("compute node")["apptainer"] == "problem"
    machine.site('modules = ["apptainer/1.3"]')  # loaded in the job only
    assert machine.states("compute node")["apptainer"] == "warning"


def test_setuid_apptainer_needs_neither_namespaces_nor_fuse(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("unshare", "exit 1")(machine)
    starter = machine.folder / "libexec/apptainer/bin/starter-suid"
    starter.parent.mkdir(parents=True)
    starter.touch()
    starter.chmod(0o4755)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/dev/fuse")
    assert machine.states()["user namespaces"] == machine.states()["fuse"] == "ok"
    starter.chmod(0o755)
    assert (machine.states()["user namespaces"], machine.states()["fuse"]) == ("problem", "warning")


def test_a_controller_that_hangs(machine: Machine) -> None:
    machine.program("scontrol", "exec sleep 30")
    begin = time.monotonic()
    with pytest.raises(slurm.SlurmError, match=r"scontrol: no answer in 0 s"):
        slurm.settings(0.2)
    assert time.monotonic() - begin < 20


def test_variables_of_the_shell_that_no_job_gets(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINER_BIND", "SLURM_ARRAY_JOB_ID", "HPCSCALE_LAUNCHER", "HPCSCALE_SITE", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    [found] = [finding for finding in machine.examine() if finding.check == "shell"]
    assert found.state == "warning"
    assert found.found == "sets APPTAINER_BIND, HPCSCALE_LAUNCHER, SLURM_ARRAY_JOB_ID"
    assert "shell" not in machine.states("compute node")


def test_a_program_that_says_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(machine.programs / "python"))
    machine.program("horovodrun", "exit 3")
    assert worst(node.horovod(None)) == ("problem", "exit code 3")


OLD = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\nGCC version 12.3.0\n"
NEW = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n"


@pytest.mark.parametrize(
    ("text", "cuda", "state"),
    [
        (OLD, "13.0", "problem"),
        (OLD, "12.8", "ok"),
        (NEW, "13.0", "ok"),
        (NEW, None, "ok"),
        ("", "13.0", "ok"),
    ],
)
def test_driver(tmp_path: Path, machine: Machine, text: str, cuda: str | None, state: str) -> None:
    if text:
        (tmp_path / "driver").write_text(text)
    assert worst(node.gpu(cuda, False, tmp_path / "driver"))[0] == state


def test_gpus_that_are_not_there(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert worst(node.gpu("13.0", False, tmp_path / "none")) == ("problem", "no driver")
    (tmp_path / "driver").write_text("NVRM version: Kernel Module  580.65.06  Release")

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(node.ctypes, "CDLL", missing)
    (finding,) = node.gpu("13.0", True, tmp_path / "driver")
    assert (finding.state, finding.advice) == ("problem", "start the image with --nv")


def test_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interface(name: str, state: str, kind: str = "1") -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(state + "\n")
        (tmp_path / name / "type").write_text(kind + "\n")

    interface("lo", "unknown", "772")
    assert worst(node.network(None, tmp_path)) == ("warning", "loopback only")
    interface("eth0", "up")
    interface("ib1", "down", node.INFINIBAND)
    assert worst(node.network(None, tmp_path))[0] == "ok"
    assert worst(node.network("eth0", tmp_path))[0] == "ok"
    assert worst(node.network("ib1", tmp_path))[0] == "problem"
    interface("ib0", "up", node.INFINIBAND)
    found = list(node.network(None, tmp_path))
    assert found[0].state == "warning"
    assert found[0].advice.startswith('set interface = "ib0" in the site')
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    assert [f.found for f in node.network("ib0", tmp_path) if f.check == "limits"] == [
        "64 KB of locked memory"
    ]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert worst(node.limits()) == ("warning", "1024 open files")


def test_packages_of_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(node.site, "getusersitepackages", lambda: str(tmp_path))
    assert worst(node.packages(True)) == ("ok", "none")
    (tmp_path / "numpy-1.0.dist-info").mkdir()
    (tmp_path / "numpy-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n"
    )
    assert worst(node.packages(True)) == ("ok", f"{tmp_path}: 1 packages, as numpy, not used")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert worst(node.packages(True)) == ("problem", f"{tmp_path}: 1 packages, as numpy")
    assert worst(node.packages(False))[0] == "warning"
    monkeypatch.setenv("PYTHONPATH", "/x")
    assert len(list(node.packages(True))) == 2


def test_horovod(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(machine.programs / "python"))
    built = "echo 'Horovod v0.28.1:'; echo '    [X] PyTorch'; echo '    [X] Gloo'; echo '    [ ] NCCL'"
    machine.program("horovodrun", built)
    monkeypatch.setattr(node, "cuda_of_torch", lambda: None)
    assert worst(node.horovod(None)) == ("ok", "Horovod v0.28.1 with Gloo, PyTorch")
    monkeypatch.setattr(node, "cuda_of_torch", lambda: "13.0")
    assert worst(node.horovod(None))[0] == "warning"
    machine.program("horovodrun", built.replace("[X] Gloo", "[ ] Gloo"))
    assert worst(node.horovod(None))[0] == "problem"
    machine.program("horovodrun", "echo ImportError: libtorch >&2; exit 1")
    assert worst(node.horovod(None)) == ("problem", "ImportError: libtorch")
    monkeypatch.setattr(node.importlib.util, "find_spec", lambda name: None)
    assert [worst(node.horovod(backend))[0] for backend in ("horovod", "torch")] == ["problem", "ok"]


def test_cuda_of_the_image(machine: Machine) -> None:
    bill = machine.folder / "image.sif.cdx.json"
    for version, cuda in (("2.13.0+cu130", "13.0"), ("2.6.0+cu124", "12.4"), ("2.13.0+cpu", None)):
        bill.write_text(json.dumps({"components": [{"name": "torch", "version": version}]}))
        assert doctor.cuda_of_image(machine.image) == cuda
    listed = [{"name": "cuda-toolkit", "version": "13.0.3.0"}, {"name": "torch", "version": "2.13.0"}]
    bill.write_text(json.dumps({"components": listed}))
    assert doctor.cuda_of_image(machine.image) == "13.0"
    bill.write_text("no")
    assert doctor.cuda_of_image(machine.image) is None


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert doctor.locate() == "compute node"
    monkeypatch.setenv("APPTAINER_CONTAINER", "/x.sif")
    assert doctor.locate() == "image"


def test_command_line(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "locate", lambda: "login node")
    arguments = ["doctor", str(machine.folder), "--site", str(machine.folder / "site.toml")]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["place"], found["problems"]) == (0, "login node", 0), result.output
    assert {"check", "state", "found", "advice"} == set(found["findings"][0])
    machine.image.unlink()
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"problem  image: {machine.image} is not here\n         -> build it" in result.output
    result = CliRunner().invoke(main, [*arguments[:2], "--site", "nowhere", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["findings"][0]["check"]) == (1, "site")


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from hpcscale.cli import main
try:
    main(["doctor", {str(tmp_path)!r}])
finally:
    loaded = {{name.partition(".")[0] for name in sys.modules}}
    print(sorted(loaded & {{"torch", "h5py", "numpy", "horovod"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done
