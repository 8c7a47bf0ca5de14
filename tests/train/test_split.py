"""A classifier divided over ranks trains as a whole one, by either library: resumed, killed, and on disk."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import sliced
import tiny
import torch
from runs import assert_same_bits, weights
from sliced import KINDS
from torch import nn

from hpcscale import ranks
from hpcscale.models import networks, slices

KEYS: dict[str, Any] = {
    "train__batch": 8, "train__steps": 6, "schedule__lr": 0.05, "data__held_out": 0.3,
    "model__head_bias": -1.0,
}  # fmt: skip
SGD: dict[str, Any] = KEYS | {"optimizer__nesterov": True}
RMSPROP: dict[str, Any] = KEYS | {
    "optimizer__name": "rmsprop", "loss__name": "softmax", "noise__share": 0.5, "train__average": 0.9,
}  # fmt: skip
SLICES = {"model__slices": "ranks"}
BACKENDS = ("horovod", "torch")


@pytest.fixture(autouse=True)
def _networks_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.MODELS, "resnet50", networks.MODELS["resnet50"])


def four(folder: Path) -> dict[Path, dict[str, Any]]:
    """Runs in a folder, with their keys: of either optimizer, with a whole and with a divided classifier."""
    optimizers, cuts = {"sgd": SGD, "rmsprop": RMSPROP}, {"whole": {}, "split": SLICES}
    return {folder / f"{name}-{cut}": optimizers[name] | cuts[cut] for name in optimizers for cut in cuts}


@pytest.fixture(scope="module")
def both(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two ranks, by the library between them and by name; only to be read."""
    folders = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    for backend, folder in folders.items():
        runs = four(folder) | {folder / "half": SGD | SLICES | {"train__steps": 3}}
        runs |= {folder / "bfloat16": SGD | SLICES | {"train__steps": 1, "train__precision": "bfloat16"}}
        assert sliced.start(recipe, runs, 2, backend) == 0
    return folders


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def two(both: dict[str, Path], backend: str) -> Path:
    return both[backend]


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    """Names, shapes, and numbers relative to the largest of their tensor."""
    assert {name: each.shape for name, each in found.items()} == {n: each.shape for n, each in wanted.items()}
    for name, each in wanted.items():
        assert (found[name] - each).abs().max() <= tolerance * each.abs().max().clamp(min=1e-2), name


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_row_15_one_slice_has_the_bits_of_the_whole(kind: tuple[int, str, str]) -> None:
    whole, divided = sliced.layer(*kind, False), sliced.layer(*kind, True)
    assert whole.keys() == divided.keys()
    assert [name for name in whole if not torch.equal(whole[name], divided[name])] == []
    assert whole["losses"].dtype == torch.float64


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_row_15_several_slices_are_the_whole(tmp_path: Path, count: int) -> None:
    """Weights, optimizer state and losses, in one pass and in two."""
    code = f"import sys; sys.path = {sys.path}; import sliced; sliced.layers({str(tmp_path)!r})"
    assert ranks.launch([sys.executable, "-c", code], count) == 0
    found = torch.load(tmp_path / str(count))
    for n, kind in enumerate(KINDS):
        wanted = sliced.layer(*kind, False)
        assert_close(found[2 * n], wanted, 1e-6)
        assert_close(found[2 * n + 1], wanted, 1e-6)
        assert_close(found[2 * n], wanted, 1e-12)  # what float64 can


@pytest.mark.parametrize(("count", "rows", "last"), [(50, 366, 357), (336, 55, 0), (1, 18291, 18291)])
def test_row_15_slices_of_the_paper(
    monkeypatch: pytest.MonkeyPatch, count: int, rows: int, last: int
) -> None:
    """18,291 classes in 50 slices: 18,300 rows, of which the last nine are none's."""
    whole = nn.Linear(3, 18_291)
    whole.bias.requires_grad_(False)
    held = []
    for rank in range(count):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "size", lambda: count)
        own = slices.Slice(whole)
        assert (own.weight.shape, own.bias.shape) == ((rows, 3), (rows,))
        assert (own.weight.requires_grad, own.bias.requires_grad) == (True, False)
        assert not own.weight[len(own.classes) :].any()
        assert torch.equal(own.weight[: len(own.classes)], whole.weight[own.classes.start : own.classes.stop])
        held += own.classes
    assert len(own.classes) == last
    assert held == list(range(18_291))


def test_row_15_a_run_of_one_rank_has_the_bits_of_a_whole_one(recipe: Path, tmp_path: Path) -> None:
    for name, keys in {"sgd": SGD, "rmsprop": RMSPROP}.items():
        sliced.train(recipe, tmp_path / f"{name}-whole", **keys)
        sliced.train(recipe, tmp_path / f"{name}-split", **keys, **SLICES)
        assert_same_bits(tmp_path / f"{name}-whole", tmp_path / f"{name}-split")
        assert metrics(tmp_path / f"{name}-whole") == metrics(tmp_path / f"{name}-split")


def metrics(run: Path) -> dict[str, Any]:
    (found,) = run.glob("evaluations/*/metrics.json")
    values: dict[str, Any] = json.loads(found.read_text())["metrics"]
    return values


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["whole", "split"])
@pytest.mark.parametrize(("name", "keys"), [("sgd", SGD), ("rmsprop", RMSPROP)])
def test_row_15_two_ranks_train_as_one_in_two_parts(
    recipe: Path, two: Path, tmp_path: Path, name: str, keys: dict[str, Any], cut: str
) -> None:
    """Weights, optimizer state, losses and metrics; with labels that are wrong on purpose, and an average."""
    sliced.train(recipe, tmp_path, **keys, train__accumulate=2)
    assert_close(weights(two / f"{name}-{cut}"), weights(tmp_path), 1e-6)
    lines, wanted = (tiny.events(run, "step") for run in (two / f"{name}-{cut}", tmp_path))
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in wanted], rel=1e-6)
    assert metrics(two / f"{name}-{cut}") == pytest.approx(metrics(tmp_path), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd-whole", "sgd-split", "rmsprop-whole", "rmsprop-split", "bfloat16"])
def test_row_15_two_ranks_get_the_same_bits_from_either_library(both: dict[str, Path], name: str) -> None:
    """The sum of two floats has no order."""
    one, other = (both[backend] / name for backend in BACKENDS)
    assert [tiny.events(run, "start")[0]["backend"] for run in (one, other)] == [*BACKENDS]
    assert_same_bits(one, other)
    losses, same = ([line["loss"] for line in tiny.events(run, "step")] for run in (one, other))
    assert losses == same


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
def test_row_15_a_run_of_two_slices_goes_on_in_any_number(
    recipe: Path, two: Path, tmp_path: Path, count: int, backend: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two / "half", run)
    assert sliced.start(recipe, {run: SGD | SLICES}, count, backend) == 0
    assert tiny.events(run, "resume")[0]["step"] == 3
    assert_close(weights(run), weights(two / "sgd-split"), 1e-6)
    if count == 2:
        assert_same_bits(run, two / "sgd-split")


@pytest.mark.slow
def test_row_15_a_killed_rank_leaves_no_trace(recipe: Path, two: Path, tmp_path: Path, backend: str) -> None:
    """Killed in step 4, after the checkpoint of step 2; also, what goes on undivided has the same numbers."""
    undivided = tmp_path / "undivided"
    for run, keys in (runs := four(tmp_path)).items():
        assert sliced.start(recipe, {run: keys}, 2, backend, killed_in=4) == 137
    shutil.copytree(tmp_path / "sgd-split", undivided)
    assert sliced.start(recipe, runs | {undivided: SGD}, 2, backend) == 0
    for run in runs:
        assert tiny.events(run, "resume")[0]["step"] == 2
        assert_same_bits(run, two / run.name)
    assert_close(weights(undivided), weights(two / "sgd-split"), 1e-6)


@pytest.mark.slow
def test_bfloat16_features_travel(two: Path) -> None:
    assert all(value.dtype == torch.float32 for value in weights(two / "bfloat16").values())
    found, exact = (tiny.events(two / run, "step")[0]["loss"] for run in ("bfloat16", "sgd-split"))
    assert found != exact
    assert found == pytest.approx(exact, rel=0.02)
