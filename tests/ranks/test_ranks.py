"""The communicator: alone, and as real Horovod ranks of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcscale import ranks
from hpcscale.ranks import device, horovod, joining
from hpcscale.ranks.communicator import Backend


def test_alone_everything_is_the_identity() -> None:
    ranks.init()
    assert (ranks.rank(), ranks.size(), ranks.local_rank(), ranks.local_size()) == (0, 1, 0, 1)
    tensor = torch.tensor([1.0, 2.0])
    assert ranks.sum_(tensor).tolist() == [1.0, 2.0]
    for same in (ranks.max_, ranks.gather_rows, ranks.exchange_rows):
        assert same(tensor) is tensor
    ranks.broadcast([tensor])
    array = np.arange(3)
    assert ranks.gather(array) is array
    assert ranks.broadcast_object({"a": [1]}) == {"a": [1]}
    ranks.barrier()
    ranks.shutdown()


@pytest.mark.parametrize(
    ("visible", "place", "size", "index"),
    [(4, 0, 4, 0), (4, 3, 4, 3), (1, 0, 1, 0), (1, 1, 2, 0), (1, 3, 4, 0), (8, 1, 2, 1)],
)
def test_a_device_of_each_rank(visible: int, place: int, size: int, index: int) -> None:
    """One that is visible is the one that the site gave to this rank, whatever its number."""
    assert device.choose(visible, place, size) == index


@pytest.mark.parametrize(("visible", "place", "size"), [(0, 0, 1), (2, 2, 4), (2, 0, 4), (3, 1, 4)])
def test_too_few_devices(visible: int, place: int, size: int) -> None:
    with pytest.raises(ranks.SlurmError, match=f"local rank {place} of {size} sees {visible} GPUs"):
        device.choose(visible, place, size)


def test_the_device_of_a_process_alone() -> None:
    assert ranks.device_index(3) == 0
    with pytest.raises(ranks.SlurmError, match="sees 0 GPUs"):
        ranks.device_index(0)


@pytest.mark.parametrize(
    ("said", "wanted", "chosen"),
    [
        ("", None, "horovod"),
        ("", "torch", "torch"),
        ("torch", "horovod", "torch"),
        ("horovod", "torch", "horovod"),
    ],
)
def test_the_environment_overrules_the_recipe_which_overrules_horovod(
    monkeypatch: pytest.MonkeyPatch, said: str, wanted: Backend | None, chosen: str
) -> None:
    monkeypatch.setenv("HPCSCALE_BACKEND", said)
    assert joining.choose(wanted) == chosen


def test_a_library_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCSCALE_BACKEND", "gloo")
    with pytest.raises(ranks.JoinError, match="HPCSCALE_BACKEND is 'gloo'; allowed: horovod, torch"):
        ranks.init()


@pytest.mark.slow
def test_torch_needs_no_horovod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "horovod.py").write_text("raise ImportError('there is none')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    for backend, code in (("torch", 0), ("horovod", 1)):
        monkeypatch.setenv("HPCSCALE_BACKEND", backend)
        assert launch(tmp_path, "ranks.barrier()") == code


def test_importing_ranks_imports_neither_torch_nor_horovod() -> None:
    code = "import sys, hpcscale.ranks; sys.exit('torch' in sys.modules or 'horovod' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def launch(tmp_path: Path, body: str, count: int = 2) -> int:
    """Run `body` as ranks that have joined; it finds `rank`, `out` (a folder), numpy, torch and ranks."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys, time\nfrom pathlib import Path\nimport numpy as np\nimport torch\n"
        f"from hpcscale import ranks\nranks.init()\nrank, out = ranks.rank(), Path({str(tmp_path)!r})\n"
        + body
    )
    return ranks.launch([sys.executable, str(program)], count)


@pytest.mark.slow
def test_collectives_of_three_ranks(tmp_path: Path) -> None:
    body = """
tensor = torch.tensor([1.0, 10.0]) * (rank + 1)
assert ranks.sum_(tensor).tolist() == [6.0, 60.0]
assert ranks.gather(np.arange(rank * 2).reshape(-1, 2) + rank).tolist() == [[1, 2], [2, 3], [4, 5]]
assert ranks.gather(np.zeros((0, 3), np.float32)).shape == (0, 3)
frozen = np.frombuffer(b"ab", np.uint8)
assert ranks.gather(frozen).tobytes() == b"ababab"
assert ranks.broadcast_object({"who": rank, "what": [None, "x" * 1000 * (1 + rank)]})["who"] == 0
weights = torch.full((2, 3, 4, 4), float(rank + 2)).contiguous(memory_format=torch.channels_last)
counter, view = torch.tensor(rank + 2), torch.arange(6.0).reshape(2, 3).t() * (rank + 2)
ranks.broadcast([weights, counter, view])
assert torch.all(weights == 2) and weights.is_contiguous(memory_format=torch.channels_last)
assert counter == 2 and torch.equal(view, torch.arange(6.0).reshape(2, 3).t() * 2)
assert (ranks.size(), ranks.local_rank(), ranks.local_size()) == (3, rank, 3)
ranks.barrier()
(out / f"done{rank}").touch()
ranks.shutdown()
"""
    assert launch(tmp_path, body, 3) == 0
    assert len(list(tmp_path.glob("done*"))) == 3


@pytest.mark.slow
def test_rows_of_three_ranks(tmp_path: Path) -> None:
    """In each dtype that a network computes in, and in each that counts or names something."""
    body = """
assert ranks.max_(torch.tensor([1.0 + rank, -rank])).tolist() == [3.0, 0.0]
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32):
    mine = (torch.arange(4) + 10 * rank).reshape(2, 2).to(dtype)
    found = ranks.gather_rows(mine)
    assert found.dtype == dtype and found.shape == (6, 2)
    assert found.flatten().tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert ranks.gather_rows(mine.t())[:, 0].tolist() == [0, 1, 10, 11, 20, 21]
    rows = torch.stack([torch.tensor([to, 10 * rank]) for to in (0, 0, 1, 1, 2, 2)]).to(dtype)
    found = ranks.exchange_rows(rows)
    assert found.dtype == dtype
    assert found.tolist() == [[rank, sender] for sender in (0, 0, 10, 10, 20, 20)]
(out / f"done{rank}").touch()
"""
    assert launch(tmp_path, body, 3) == 0
    assert len(list(tmp_path.glob("done*"))) == 3


@pytest.mark.parametrize(("gpu", "milliseconds"), [(False, "5"), (True, "1")])
def test_horovod_looks_for_work_less_often_on_cores_that_compute(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, milliseconds: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert horovod.settings()["HOROVOD_CYCLE_TIME"] == milliseconds


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["None", "700"], ids=["one bucket", "overlapped"])
def test_gradients_are_those_of_one_process(tmp_path: Path, limit: str) -> None:
    """Two ranks with half the batch each: the summed gradients equal those of the whole batch in one
    process."""
    body = """
from hpcscale.train.gradients import GradientBuckets
def network():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 5)]
    return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
whole = network()
(whole(images).square().sum() / 8).backward()
half = network()
buckets = GradientBuckets(half.parameters(), limit=LIMIT)
assert len(buckets.buckets) == (1 if LIMIT is None else 2)
for turn in range(2):  # the second time in used buffers
    buckets.clear()
    loss = half(images[rank * 4 : rank * 4 + 4]).square().sum() / 8
    loss.backward()
    numbers = buckets.finish(loss.detach(), float(rank)).tolist()
for ours, wanted in zip(half.parameters(), whole.parameters()):
    torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-6, atol=1e-6)
    assert ours.grad.stride() == ours.stride()
assert abs(numbers[0] - (whole(images).square().sum() / 8).item()) < 1e-5 and numbers[1] == 1.0
(out / f"done{rank}").touch()
"""
    assert launch(tmp_path, body.replace("LIMIT", limit)) == 0
    assert len(list(tmp_path.glob("done*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code"),
    [("os.kill(os.getpid(), signal.SIGKILL)", 137), ("sys.exit(7)", 7), ("raise ValueError('why')", 1)],
    ids=["killed", "exit", "exception"],
)
def test_one_rank_ends_all_and_its_code_is_the_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], end: str, code: int
) -> None:
    began = time.monotonic()
    body = f"""
if rank == 1:
    {end}
try:
    while True:
        ranks.sum_(torch.ones(3))
except ranks.RankLost:
    sys.exit(ranks.LOST)
"""
    assert launch(tmp_path, body) == code
    assert time.monotonic() - began < 60
    if code == 1:
        assert "rank 1: ValueError: why" in capfd.readouterr().err


@pytest.mark.slow
def test_rank_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.local, "GRACE", 0.5)
    body = "sys.exit(3) if rank == 1 else None\ntime.sleep(1000)"
    assert launch(tmp_path, body) == 3


@pytest.mark.slow
def test_resumable_is_passed_on(tmp_path: Path) -> None:
    assert launch(tmp_path, "sys.exit(ranks.RESUMABLE)") == 75


def test_a_rank_that_lost_another_is_not_the_cause() -> None:
    """Rank 0 notices at once and ends; rank 1, which failed, is slower to end."""
    program = "import os, sys, time; r = int(os.environ['HOROVOD_RANK']); time.sleep(r); sys.exit([76, 7][r])"
    assert ranks.launch([sys.executable, "-c", program], 2) == 7


def test_only_rank_0_has_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = "import os, sys; print('from', os.environ['HOROVOD_RANK']); print('e', file=sys.stderr)"
    assert ranks.launch([sys.executable, "-c", program], 2) == 0
    assert capfd.readouterr() == ("from 0\n", "e\n")


def test_signals_are_passed_on_and_handlers_restored(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    program = (
        "import os, signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75));"
        f"open({str(tmp_path)!r} + '/' + os.environ['HOROVOD_RANK'], 'w');"
        "rank0 = os.environ['HOROVOD_RANK'] == '0';"
        f"[time.sleep(0.05) for _ in range(200) if len(os.listdir({str(tmp_path)!r})) < 2];"
        "os.kill(os.getppid(), signal.SIGUSR1) if rank0 else None; time.sleep(60)"
    )
    assert ranks.launch([sys.executable, "-c", program], 2) == 75
    assert signal.getsignal(signal.SIGUSR1) is before


def test_ranks_die_with_their_launcher(tmp_path: Path) -> None:
    """kill -9 of the launcher leaves no rank behind."""
    rank = f"import os, time; open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w'); time.sleep(600)"
    program = f"import sys; from hpcscale import ranks; ranks.launch([sys.executable, '-c', {rank!r}], 2)"
    launcher = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    found = [int(path.name) for path in tmp_path.iterdir()]
    launcher.kill()
    launcher.wait()
    while any(alive(process) for process in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 2
    assert not any(alive(process) for process in found)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["nowhere.invalid", "192.0.2.1"])  # the address of documentation
def test_a_name_without_address_is_an_error_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setattr("socket.gethostname", lambda: name)
    with pytest.raises(ranks.JoinError, match=f"{name}, has no address.*/etc/hosts"):
        ranks.init()


def test_what_ranks_of_this_machine_are_told() -> None:
    """The address is of loopback alone."""
    environments = ranks.local._environments(2, 7)
    assert [e["HOROVOD_RANK"] for e in environments] == ["0", "1"]
    for each in environments:
        assert (each["HOROVOD_GLOO_RENDEZVOUS_ADDR"], each["HOROVOD_GLOO_RENDEZVOUS_PORT"]) == (
            "127.0.0.1",
            "7",
        )
        assert each["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", each["OMP_NUM_THREADS"])


def test_nothing_is_asked_of_horovod_once_a_rank_is_lost() -> None:
    """Its thread waits for Python with a lock that the next call takes: one loss in twenty hung."""
    from horovod.common.exceptions import HorovodInternalError

    called: list[str] = []

    class Broken:
        Sum = Max = None

        def __getattr__(self, name: str) -> Callable[..., object]:
            def call(*_: object, **__: object) -> object:
                called.append(name)
                if name == "synchronize":
                    raise HorovodInternalError("Connection closed by peer [127.0.0.1]. More of it\nand more")
                return 7

            return call

    broken = horovod.Horovod.__new__(horovod.Horovod)
    broken.library, broken.lost = Broken(), ""
    pending = broken.start_sum(torch.ones(3), "pending")
    said = r"^another rank has ended: Connection closed by peer \[127\.0\.0\.1\]$"
    with pytest.raises(ranks.RankLost, match=said):
        broken.max(torch.ones(3))
    called.clear()
    ones = torch.ones(2)
    calls: tuple[Callable[[], object], ...] = (
        lambda: broken.wait(pending),
        lambda: broken.start_sum(ones, "next"),
        lambda: broken.max(ones),
        lambda: broken.gather_rows(ones),
        lambda: broken.gather(ones),
        lambda: broken.exchange_rows(ones),
        lambda: broken.broadcast(ones, "parameters"),
        broken.barrier,
    )
    for call in calls:
        with pytest.raises(ranks.RankLost, match=said):
            call()
    assert called == []
    broken.shutdown()
    assert called == ["shutdown"]
