"""The cluster itself: what Slurm does on it without us, and that nothing is left of it."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import rig

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300, func_only=True)]


def test_two_nodes_array_and_dependency(cluster: None) -> None:
    rig.all_idle()
    names = rig.login("srun", "--nodes=2", "hostname").split()
    assert len(set(names)) == 2
    assert rig.login("srun", "id", "-un").strip() == rig.USER
    array = rig.login("sbatch", "--parsable", "--array=0-2", "--output=/dev/null", "--wrap=true").strip()
    after = ("--dependency=afterok:" + array, "--kill-on-invalid-dep=yes", "--output=/dev/null")
    assert rig.ended(rig.login("sbatch", "--parsable", *after, "--wrap=true").strip()) == "COMPLETED"
    failed = rig.login("sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 3").strip()
    after = ("--dependency=afterok:" + failed, "--kill-on-invalid-dep=yes", "--output=/dev/null")
    assert rig.ended(rig.login("sbatch", "--parsable", *after, "--wrap=true").strip()) == "CANCELLED"


def test_machines_have_their_own_tmp_and_share_one_folder(cluster: None) -> None:
    rig.login("touch", "/tmp/mine", rig.WORK / "ours", at="n1")
    assert rig.login("ls", rig.WORK / "ours", at="n2")
    with pytest.raises(rig.Failed, match="No such file"):
        rig.login("ls", "/tmp/mine", at="n2")
    with pytest.raises(rig.Failed, match="unreachable"):
        rig.login("python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)")


def processes(folder: Path) -> list[str]:
    """Processes of all machines of the cluster in this folder, and what started them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables = (place / "environ").read_bytes().split(b"\0")
            if f"CLUSTER={folder}".encode() in variables:
                found.append(f"{place.name} {(place / 'cmdline').read_bytes()!r}")
        except OSError:
            continue
    return found


def mounts() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


@pytest.mark.parametrize("moment", ["etc", "state/ctl/plug", "state/n2/plug", "shared/hpcscale", None])
def test_nothing_is_left(moment: str | None) -> None:
    """Of another cluster beside this one: brought down, or killed as soon as it has made `moment`.

    Its clone lies where machines have a folder of their own, and do not see it."""
    folder = Path(f"/var/tmp/hpcscale-cluster-{os.getpid()}")  # machines do not see /tmp of the host
    variables = os.environ | {"HPCSCALE_CLUSTER": str(folder)}
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    before = mounts()
    clone = Path(tempfile.mkdtemp(dir="/tmp")) / "tests" / "live"
    shutil.copytree(rig.HERE, clone)
    try:
        with subprocess.Popen([clone / "up"], env=variables, start_new_session=True) as up:
            if moment is None:
                assert up.wait(60) == 0
                assert len(processes(folder)) > 4
            else:
                rig.wait_for(moment, 60, (folder / moment).exists)
                os.killpg(up.pid, signal.SIGKILL)
        subprocess.run([clone / "down"], env=variables, check=True)
        assert processes(folder) == []
        assert mounts() == before
        assert (
            subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout == links
        )
        assert [path.name for path in folder.iterdir()] in ([], ["images"])
    finally:
        subprocess.run([rig.HERE / "down"], env=variables, check=True)
        subprocess.run(["rm", "-rf", folder, clone.parents[1]], check=True)


def test_slurm_is_asked_again_when_its_controller_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [-13, -13]
    monkeypatch.setattr(rig.time, "sleep", lambda seconds: None)

    def login(*words: str) -> str:
        if codes:
            raise rig.Failed(f"login squeue: exit code {codes.pop()}\n")
        return "RUNNING\n"

    monkeypatch.setattr(rig, "login", login)
    assert rig.state("7") == "RUNNING"
    for failures in ([1], [-13, -13, -13]):
        codes[:] = failures
        with pytest.raises(rig.Failed):
            rig.state("7")
