"""Both communicators do the same: every function of `ranks` on two and three ranks, lost ranks, leaving."""

import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from hpcscale import ranks
from hpcscale.ranks.communicator import Backend

BACKENDS: tuple[Backend, ...] = get_args(Backend)
COUNTS = (2, 3)
SUMMED = (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32)
CARRIED = (*SUMMED, torch.bfloat16, torch.int16, torch.uint8, torch.bool)
SECONDS = 60.0  # to wait for what must come
Found = dict[str, Any]

pytestmark = pytest.mark.slow


def drawn(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers of a rank; those of floats round when they are added."""
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(7 + rank), dtype=torch.float64)
    if dtype == torch.bool:
        return numbers > 0.5
    return (100 * numbers - 40 * dtype.is_floating_point).to(dtype)


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, (n, c, h, w), with the strides of channels_last."""
    return tensor.contiguous(memory_format=torch.channels_last)


# ---- what a rank does: inputs by its number, outputs by the name of the function


def sums(rank: int) -> Found:
    found = {str(dtype): ranks.sum_(drawn(rank, 5, 7, dtype=dtype)) for dtype in SUMMED}
    found["again"] = [ranks.sum_(drawn(rank, 5, 7)) for _ in range(3)]
    return found | {"large": ranks.sum_(drawn(rank, 3_000_001)), "scalar": ranks.sum_(torch.tensor(rank))}


def sums_under_way(rank: int) -> Found:
    """Several at a time, waited for backwards, with another collective between."""
    tensors = [drawn(rank + 10 * n, 1000 * n + 1) for n in range(4)]
    handles = [ranks.start_sum(tensor, f"test.{n}") for n, tensor in enumerate(tensors)]
    between = ranks.gather_rows(torch.tensor([rank]))
    for handle in reversed(handles):
        ranks.wait(handle)
    return {"tensors": tensors, "between": between}


def largest(rank: int) -> Found:
    return {str(dtype): ranks.max_(drawn(rank, 9, dtype=dtype)) for dtype in SUMMED}


def gathered(rank: int) -> Found:
    found = {str(dtype): ranks.gather_rows(drawn(rank, 3, 2, dtype=dtype)) for dtype in CARRIED}
    found["turned"] = ranks.gather_rows(drawn(rank, 3, 2).t())
    found["strided"] = ranks.gather_rows(strided(drawn(rank, 2, 3, 4, 4)))
    found["flat"] = ranks.gather_rows(drawn(rank, 4))
    found["trained"] = ranks.gather_rows(torch.nn.Parameter(drawn(rank, 3, 2)))
    return found | {
        "none": ranks.gather_rows(torch.zeros(0, 3)),
        "narrow": ranks.gather_rows(torch.zeros(3, 0)),
    }


def exchanged(rank: int) -> Found:
    rows = 2 * ranks.size()
    found = {str(dtype): ranks.exchange_rows(drawn(rank, rows, 3, dtype=dtype)) for dtype in CARRIED}
    found["turned"] = ranks.exchange_rows(drawn(rank, 3, rows).t())
    return found | {"none": ranks.exchange_rows(torch.zeros(0, 3))}


def arrays(rank: int) -> Found:
    """Rows of differing lengths; rank 1 has none."""
    lengths = [3, 0, 5]
    found: Found = {
        name: ranks.gather(drawn(rank, lengths[rank], 2, dtype=dtype).numpy())
        for name, dtype in (("float32", torch.float32), ("int64", torch.int64), ("bool", torch.bool))
    }
    found["letters"] = ranks.gather(np.frombuffer(b"abc"[: rank + 1], np.uint8))
    found["turned"] = ranks.gather(drawn(rank, 2, rank + 1).numpy().T)
    found["every second"] = ranks.gather(drawn(rank, 6).numpy()[::2])
    return found | {"none": ranks.gather(np.zeros((0, 3), np.float32))}


def broadcast(rank: int) -> Found:
    found = {str(dtype): drawn(rank, 3, 2, dtype=dtype) for dtype in CARRIED}
    found |= {"turned": drawn(rank, 3, 2).t(), "strided": strided(drawn(rank, 2, 3, 4, 4))}
    found |= {
        "scalar": torch.tensor(rank + 5),
        "none": torch.zeros(0, 3),
        "part": drawn(rank, 6, 6)[1:4, ::2],
    }
    parameter = torch.nn.Parameter(drawn(rank, 3))
    ranks.broadcast([*found.values(), parameter])
    return found | {"strides": found["strided"].stride(), "parameter": parameter.detach()}


def objects(rank: int) -> Found:
    told = {"who": rank, "what": [None, 1.5, "ä" * 1000 * (1 + rank)], "more": {}}
    return {"told": ranks.broadcast_object(told), "nothing": ranks.broadcast_object(None if rank == 0 else 1)}


def places(rank: int) -> Found:
    connections: list[socket.socket] = getattr(ranks._all, "connections", [])
    return {
        "place": (rank, ranks.size(), ranks.local_rank(), ranks.local_size()),
        "backend": ranks.backend(),
        "probed": [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for each in connections],
    }


DONE: tuple[Callable[[int], Found], ...] = (
    sums, sums_under_way, largest, gathered, exchanged, arrays, broadcast, objects, places,
)  # fmt: skip


def everything(folder: Path) -> None:
    """The program of a rank."""
    found = {each.__name__: each(ranks.rank()) for each in DONE}
    (folder / f"before{ranks.rank()}").touch()
    time.sleep(0.5 * ranks.rank())
    ranks.barrier()
    found["before"] = {"files": len(list(folder.glob("before*")))}
    torch.save(found, folder / f"{ranks.rank()}.pt")


def start(folder: Path, program: str, backend: Backend, count: int) -> int:
    """A function of this file, as ranks; the exit code."""
    lines = ["import sys", f"sys.path = {sys.path}", "from pathlib import Path", "import test_conformance"]
    lines += ["from hpcscale import ranks", f"ranks.init(wanted={backend!r})"]
    lines += [f"test_conformance.{program}(Path({str(folder)!r}))"]
    return ranks.launch([sys.executable, "-c", "; ".join(lines)], count)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Backend, int], list[dict[str, Found]]]:
    """By communicator and number of ranks: what each rank has found."""
    outputs = {}
    for backend, count in itertools.product(BACKENDS, COUNTS):
        folder = tmp_path_factory.mktemp(f"{backend}{count}")
        assert start(folder, "everything", backend, count) == 0
        outputs[backend, count] = [
            torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)
        ]
    return outputs


@pytest.fixture(params=itertools.product(BACKENDS, COUNTS), ids=lambda param: f"{param[0]}-{param[1]}")
def found(outputs: Any, request: pytest.FixtureRequest) -> list[dict[str, Found]]:
    of_one: list[dict[str, Found]] = outputs[request.param]
    return of_one


def alike(found: Any, wanted: Any) -> bool:
    """Same types, dtypes, shapes and bits."""
    if isinstance(found, Tensor):
        return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)
    if isinstance(found, np.ndarray):
        return alike(torch.from_numpy(found), torch.from_numpy(wanted))
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(alike(found[key], wanted[key]) for key in found)
    if isinstance(found, list):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    return bool(found == wanted)


# ---- what must come out


def test_sums(found: list[dict[str, Found]]) -> None:
    count = len(found)
    for rank in range(count):
        for dtype in SUMMED:
            exact = torch.stack([drawn(each, 5, 7, dtype=dtype).double() for each in range(count)]).sum(0)
            rounded = 200 * torch.finfo(dtype).eps if dtype.is_floating_point else 0  # each is below 200
            assert found[rank]["sums"][str(dtype)].dtype == dtype
            assert (found[rank]["sums"][str(dtype)].double() - exact).abs().max() <= rounded
        assert alike(found[rank]["sums"], found[0]["sums"])  # the same bits on all ranks, ...
        assert all(alike(each, found[0]["sums"]["torch.float32"]) for each in found[rank]["sums"]["again"])
        large = torch.stack([drawn(each, 3_000_001) for each in range(count)]).sum(0)
        torch.testing.assert_close(found[rank]["sums"]["large"], large)
        assert found[rank]["sums"]["scalar"] == sum(range(count))


def test_sums_under_way(found: list[dict[str, Found]]) -> None:
    count = len(found)
    for own in found:
        for n, tensor in enumerate(own["sums_under_way"]["tensors"]):
            wanted = torch.stack([drawn(each + 10 * n, 1000 * n + 1) for each in range(count)]).sum(0)
            torch.testing.assert_close(tensor, wanted)
        assert own["sums_under_way"]["between"].tolist() == list(range(count))


def test_largest(found: list[dict[str, Found]]) -> None:
    for own in found:
        for dtype in SUMMED:
            wanted = torch.stack([drawn(each, 9, dtype=dtype) for each in range(len(found))]).amax(0)
            assert alike(own["largest"][str(dtype)], wanted)


def test_rows_of_all(found: list[dict[str, Found]]) -> None:
    every = range(len(found))
    wanted = {str(dtype): torch.cat([drawn(r, 3, 2, dtype=dtype) for r in every]) for dtype in CARRIED}
    wanted["turned"] = torch.cat([drawn(r, 3, 2).t() for r in every])
    wanted["strided"] = torch.cat([drawn(r, 2, 3, 4, 4) for r in every])
    wanted["flat"] = torch.cat([drawn(r, 4) for r in every])
    wanted["trained"] = torch.cat([drawn(r, 3, 2) for r in every])
    wanted |= {"none": torch.zeros(0, 3), "narrow": torch.zeros(3 * len(found), 0)}
    for own in found:
        assert alike(own["gathered"], wanted)


def test_rows_for_each(found: list[dict[str, Found]]) -> None:
    count = len(found)
    for rank, own in enumerate(found):
        mine = slice(2 * rank, 2 * rank + 2)
        wanted = {
            str(dtype): torch.cat([drawn(r, 2 * count, 3, dtype=dtype)[mine] for r in range(count)])
            for dtype in CARRIED
        }
        wanted["turned"] = torch.cat([drawn(r, 3, 2 * count).t()[mine] for r in range(count)])
        assert alike(own["exchanged"], wanted | {"none": torch.zeros(0, 3)})


def test_arrays(found: list[dict[str, Found]]) -> None:
    every = range(len(found))
    lengths = [3, 0, 5]
    wanted: Found = {
        name: torch.cat([drawn(r, lengths[r], 2, dtype=dtype) for r in every]).numpy()
        for name, dtype in (("float32", torch.float32), ("int64", torch.int64), ("bool", torch.bool))
    }
    wanted["letters"] = np.concatenate([np.frombuffer(b"abc"[: r + 1], np.uint8) for r in every])
    wanted["turned"] = np.concatenate([drawn(r, 2, r + 1).numpy().T for r in every])
    wanted["every second"] = np.concatenate([drawn(r, 6).numpy()[::2] for r in every])
    wanted["none"] = np.zeros((0, 3), np.float32)
    for own in found:
        assert alike(own["arrays"], wanted)


def test_what_rank_0_has(found: list[dict[str, Found]]) -> None:
    wanted: Found = {str(dtype): drawn(0, 3, 2, dtype=dtype) for dtype in CARRIED}
    wanted |= {"turned": drawn(0, 3, 2).t(), "strided": drawn(0, 2, 3, 4, 4), "scalar": torch.tensor(5)}
    wanted |= {"none": torch.zeros(0, 3), "part": drawn(0, 6, 6)[1:4, ::2]}
    wanted |= {"strides": strided(drawn(0, 2, 3, 4, 4)).stride(), "parameter": drawn(0, 3)}
    told = {"who": 0, "what": [None, 1.5, "ä" * 1000], "more": {}}
    for own in found:
        assert alike(own["broadcast"], wanted)
        assert own["objects"] == {"told": told, "nothing": None}


def test_places_and_barrier(found: list[dict[str, Found]]) -> None:
    count = len(found)
    assert [own["places"]["place"] for own in found] == [(r, count, r, count) for r in range(count)]
    assert [own["before"]["files"] for own in found] == [count] * count


def test_connections_of_torch_are_probed(found: list[dict[str, Found]]) -> None:
    """Within 30 s the kernel ends those whose other end is gone; Horovod has a thread that looks after it."""
    for own in found:
        expected = [30_000] * (len(found) - 1) if own["places"]["backend"] == "torch" else []
        assert own["places"]["probed"] == expected


def test_two_ranks_get_the_same_bits_from_both(outputs: Any) -> None:
    """The sum of two floats has no order. Of three it has, and each communicator keeps to its own."""
    one, other = (outputs[backend, 2] for backend in BACKENDS)
    for a, b in zip(one, other, strict=True):
        assert (a["places"]["backend"], b["places"]["backend"]) == BACKENDS
        assert [name for name in a if name != "places" and not alike(a[name], b[name])] == []


# ---- ranks that end

WAITS: dict[str, Callable[[], object]] = {
    "sum_": lambda: ranks.sum_(torch.ones(3)),
    "max_": lambda: ranks.max_(torch.ones(3)),
    "gather_rows": lambda: ranks.gather_rows(torch.ones(3)),
    "exchange_rows": lambda: ranks.exchange_rows(torch.ones(6)),
    "gather": lambda: ranks.gather(np.ones(3)),
    "broadcast": lambda: ranks.broadcast([torch.ones(3)]),
    "barrier": ranks.barrier,
}


def loses(folder: Path, wait: Callable[[], object]) -> None:
    """Wait until RankLost comes, and say so."""

    def forever() -> None:
        while True:
            wait()
            time.sleep(0.01)

    with pytest.raises(ranks.RankLost, match=r"^another rank has ended: "):
        forever()
    (folder / f"lost{ranks.rank()}").touch()


def killed(folder: Path) -> None:
    """Rank 1 ends in the middle; all that the others try from then on raises RankLost."""
    for _ in range(3):
        ranks.sum_(torch.ones(3))
    if ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for name, wait in WAITS.items():
        (folder / name).mkdir(exist_ok=True)
        loses(folder / name, wait)
    sys.exit(ranks.LOST)


def left(folder: Path, pending: bool = False) -> None:
    """Rank 0 leaves while the others wait, or with a sum that it has begun; then it lives on."""
    ranks.barrier()
    if ranks.rank() == 0:
        if pending:
            ranks.start_sum(torch.ones(3), "never")
        ranks.shutdown()
        (folder / "left").touch()
        until(lambda: len(list(folder.glob("lost*"))) == 2)
        assert ranks.size() == 1
        return
    if pending:
        until((folder / "left").exists)
    loses(folder, ranks.barrier)


def left_with_a_sum(folder: Path) -> None:
    left(folder, pending=True)


def until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_rank_is_lost_to_all(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks.local, "GRACE", SECONDS)  # the others end by themselves
    assert start(tmp_path, "killed", backend, 3) == 128 + signal.SIGKILL
    assert sorted(f"{file.parent.name} {file.name}" for file in tmp_path.glob("*/lost*")) == sorted(
        f"{name} lost{rank}" for name in WAITS for rank in (0, 2)
    )


@pytest.mark.parametrize("program", ["left", "left_with_a_sum"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_that_leaves_is_lost_to_those_that_wait(
    tmp_path: Path, backend: Backend, program: str
) -> None:
    assert start(tmp_path, program, backend, 3) == 0
    assert sorted(file.name for file in tmp_path.glob("l*")) == ["left", "lost1", "lost2"]
