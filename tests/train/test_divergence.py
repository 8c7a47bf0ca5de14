"""Bad steps: skipped as if they had not been, gone back from, and given up on; the same when interrupted."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from runs import weights
from thin import own_settings

from hpcscale import config, ranks
from hpcscale.inputs import pipeline
from hpcscale.models import checkpoint, networks
from hpcscale.train import loop, optim, pretrain, signals
from hpcscale.train.divergence import LARGEST, Guard, History
from hpcscale.train.pretrain import train
from hpcscale.train.state import Diverged

# ---- the history, on its own ----


def policy(**keys: Any) -> config.Divergence:
    return config.Divergence(**keys)


def test_the_limit_is_a_multiple_of_the_median_of_a_full_window() -> None:
    history = History(policy(spike=3.0, window=3))
    limits = []
    for step, loss in enumerate([1.0, 2.0, 9.0, 2.5, 100.0], 1):
        limits.append(history.limit(step))
        history.good(step, loss)
    assert limits == [LARGEST] * 4 + [6.0]  # steps 1 to 3 are known before step 5
    assert [history.limit(6), history.limit(7)] == [7.5, 27.0]
    assert len(history.losses) <= 5


def test_without_spikes_no_finite_loss_is_one_and_nothing_is_kept() -> None:
    history = History(policy())
    history.good(1, 5.0)
    assert (history.limit(2), history.losses) == (LARGEST, [])


def test_skips_then_returns_then_the_end() -> None:
    history = History(policy(window=10, skips=2, rollbacks=1))
    for step in (1, 5, 12):  # never three within ten
        history.bad(step)
        assert history.due is None
    history.bad(14)
    assert (history.skipped, history.due) == ([5, 12, 14], 15)
    history.bad(15)
    assert history.due == 15
    history.returned(15)
    assert (history.skipped, history.due, history.rollbacks) == ([], None, 1)
    for step in (16, 17):
        history.bad(step)
    with pytest.raises(Diverged, match="3 bad steps within 10, and 1 returns before"):
        history.bad(18)


@pytest.mark.parametrize(("window", "due"), [(10, False), (11, True)])
def test_a_window_is_that_many_steps_the_bad_one_included(window: int, due: bool) -> None:
    """Steps 5 to 15 are eleven: in a window of ten, the first is forgotten."""
    history = History(policy(window=window, skips=2, rollbacks=1))
    for step in (5, 12, 15):
        history.bad(step)
    assert history.skipped == ([5, 12, 15] if due else [12, 15])
    assert history.due == (16 if due else None)


@given(
    bad=st.lists(st.booleans(), min_size=1, max_size=40),
    drains=st.sets(st.integers(1, 40)),
    stops=st.sets(st.integers(1, 40)),
)
@hypothesis_settings(max_examples=200, deadline=None)
def test_late_news_and_restarts_change_no_decision(
    bad: list[bool], drains: set[int], stops: set[int]
) -> None:
    """A GPU's host hears of a step one step late but where it waits; a run may start anew at any step where
    it does."""

    def decisions(late: bool, drains: set[int], stops: set[int]) -> list[Any]:
        settings = policy(spike=2.0, window=5, skips=1, rollbacks=3)
        history = History(settings)
        queue: list[int] = []
        found: list[Any] = []
        for step in range(1, len(bad) + 1):
            found.append(history.limit(step))
            queue.append(step)
            while queue and (not late or len(queue) > 1 or step in drains | stops | {len(bad)}):
                number = queue.pop(0)
                if not bad[number - 1]:
                    history.good(number, float(number % 7))
                    continue
                try:
                    history.bad(number)
                except Diverged as error:
                    return [*found, number, str(error)]
            if step == history.due:
                found.append(("back", step, history.skipped[0]))
                history.returned(step)
            if step in stops:
                history = History(settings, json.loads(json.dumps(history.state())))
        return found

    wanted = decisions(False, set(), set())
    for found in (
        decisions(True, drains, set()),
        decisions(False, set(), stops),
        decisions(True, drains, stops),
    ):
        end = -2 if wanted and isinstance(wanted[-1], str) else None
        assert found[:end][: len(wanted[:end])] == wanted[:end]
        assert end is None or found[-2:] == wanted[-2:]


# ---- the guard, on its own ----


@pytest.mark.parametrize(("name", "waits"), [("sgd", True), ("rmsprop", True), ("rmsprop", False)])
def test_a_bad_step_is_as_if_it_had_not_been(name: Any, waits: bool) -> None:
    """RMSProp does not wait for it on a GPU: that way is tried here too."""
    torch.manual_seed(0)
    model = networks.build(config.Model(zero_init_residual=False), 3)
    optimizer = optim.build(model, config.Optimizer(name=name))
    optimizer.waits = waits  # type: ignore[attr-defined]
    guard = Guard(model)
    optim.set_lr(optimizer, 0.1)

    def everything() -> dict[str, torch.Tensor]:
        found = model.state_dict() | optim.state(model, optimizer)
        return {key: value.clone() for key, value in found.items()}

    def step(scale: float) -> None:
        guard.remember()
        loss = model(torch.randn(2, 3, 32, 32)).square().sum() * scale
        optimizer.zero_grad()
        loss.backward()
        gradients = [torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])]
        bad = guard.judge(loss.detach(), LARGEST, gradients)
        optim.step(optimizer, bad)
        guard.restore(bad)

    start = everything()
    step(1.0)
    good = everything()
    assert [key for key in start if torch.equal(start[key], good[key])] == []
    step(float("nan"))
    step(float("inf"))
    after = everything()
    assert [key for key in good if not torch.equal(good[key], after[key])] == []


@pytest.mark.parametrize(
    ("loss", "limit", "gradient", "bad"),
    [
        (1.0, LARGEST, 1.0, 0.0),
        (2.0, 2.0, 1.0, 0.0),
        (2.1, 2.0, 1.0, 1.0),
        (float("inf"), LARGEST, 1.0, 1.0),
        (float("nan"), LARGEST, 1.0, 1.0),
        (1.0, LARGEST, float("inf"), 1.0),
        (1.0, LARGEST, float("nan"), 1.0),
    ],
)
def test_what_is_bad(loss: float, limit: float, gradient: float, bad: float) -> None:
    guard = Guard(torch.nn.Linear(1, 1))
    buckets = [torch.ones(5), torch.tensor([1.0, gradient])]
    assert guard.judge(torch.tensor(loss), limit, buckets).item() == bad


# ---- whole runs ----


Spoil = Callable[[dict[int, float]], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    return spoiling(monkeypatch)


def spoiling(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Multiply the loss of the given steps (from 1), wherever a run starts."""
    real_batches, real_loss = pipeline.train_batches, pretrain.LOSSES["logistic"]
    now = 0

    def spoil(factors: dict[int, float]) -> None:
        def batches(*arguments: Any, **keys: Any) -> Iterator[pipeline.Batch]:
            nonlocal now
            now = arguments[3].first
            for batch in real_batches(*arguments, **keys):
                now += 1
                yield batch

        monkeypatch.setattr(pipeline, "train_batches", batches)
        monkeypatch.setitem(pretrain.LOSSES, "logistic", lambda *a: real_loss(*a) * factors.get(now, 1.0))

    return spoil


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_skipped_step_leaves_the_state_and_its_samples_in_the_log(
    recipe: Path, tmp_path: Path, spoil: Spoil
) -> None:
    spoil({3: float("nan"), 5: float("inf")})
    train(tiny.settings(recipe, train__checkpoint_every=1, train__keep=9), tmp_path)
    assert same(weights(tmp_path, 2), weights(tmp_path, 3))
    assert not same(weights(tmp_path, 3), weights(tmp_path, 4))
    assert same(weights(tmp_path, 4), weights(tmp_path, 5))
    found = tiny.events(tmp_path, "skip")
    assert [(line["step"], line["reason"], len(line["samples"])) for line in found] == [
        (3, "the loss of step 3 is nan", 4),
        (5, "the loss of step 5 is inf", 4),
    ]
    assert [line["step"] for line in tiny.events(tmp_path, "step")] == [1, 2, 4, 6]
    assert tiny.events(tmp_path, "end")[0]["reason"] == "finished"


def test_a_spike_is_skipped_where_that_is_asked_for(recipe: Path, tmp_path: Path, spoil: Spoil) -> None:
    spoil({5: 50.0})
    keys = {"divergence__window": 2, "train__checkpoint_every": 1, "train__keep": 9}
    train(tiny.settings(recipe, **keys), tmp_path / "without")
    assert tiny.events(tmp_path / "without", "skip") == []
    train(tiny.settings(recipe, **keys, divergence__spike=5.0), tmp_path / "with")
    (found,) = tiny.events(tmp_path / "with", "skip")
    assert found["step"] == 5
    assert found["reason"].startswith("the loss of step 5 is ")
    assert ", where the median was " in found["reason"]
    assert same(weights(tmp_path / "with", 4), weights(tmp_path / "with", 5))


KEYS = {"divergence__skips": 1, "divergence__rollbacks": 1, "train__steps": 8, "train__keep": 9}


@pytest.fixture(scope="module")
def spoiled(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run whose steps 4 and 5 are bad."""
    run = tmp_path_factory.mktemp("spoiled")
    with pytest.MonkeyPatch.context() as patch, own_settings():
        spoiling(patch)({4: float("nan"), 5: float("nan")})
        train(tiny.settings(recipe, **KEYS), run)
    return run


def test_too_many_skips_go_back_and_on_with_what_comes_next(spoiled: Path) -> None:
    """After step 6 the weights are those of step 2, the last checkpoint before the bad steps."""
    assert [(line["step"], line["to"]) for line in tiny.events(spoiled, "rollback")] == [(6, 2)]
    assert same(weights(spoiled, 2), weights(spoiled, 6))
    assert not same(weights(spoiled, 6), weights(spoiled, 8))


@pytest.mark.parametrize("stop", [3, 4, 5, 6, 7])
def test_interrupted_anywhere_it_decides_the_same(
    recipe: Path, spoiled: Path, tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    spoil({4: float("nan"), 5: float("nan")})
    run = tmp_path / "stopped"
    monkeypatch.setattr(signals.StopRequest, "requested", property(lambda _: len(seen) == stop))
    seen: list[int] = []
    real = optim.set_lr

    def counting(*arguments: Any) -> None:
        seen.append(1)
        real(*arguments)

    monkeypatch.setattr(optim, "set_lr", counting)
    with pytest.raises(loop.Interrupted, match=f"after step {stop}"):
        train(tiny.settings(recipe, **KEYS), run)
    train(tiny.settings(recipe, **KEYS), run)
    assert same(weights(run, 8), weights(spoiled, 8))
    assert len(tiny.events(run, "rollback")) == 1


def test_when_going_back_does_not_help_it_stops(recipe: Path, tmp_path: Path, spoil: Spoil) -> None:
    spoil({step: float("nan") for step in range(4, 9)})
    with pytest.raises(Diverged, match=r"the loss of step 8 is nan; its samples: .*; 2 bad .* and 1 returns"):
        train(tiny.settings(recipe, **KEYS), tmp_path)
    assert tiny.events(tmp_path, "end")[0]["reason"] == "diverged"
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 6


def test_nothing_to_go_back_to(recipe: Path, tmp_path: Path, spoil: Spoil) -> None:
    spoil({1: float("nan"), 2: float("nan")})
    with pytest.raises(Diverged, match="no checkpoint from before step 1"):
        train(tiny.settings(recipe, **KEYS), tmp_path)


def test_a_gradient_may_overflow_under_a_finite_loss(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, logits: torch.Tensor) -> torch.Tensor:
            context.shape = logits.shape
            return logits.sum() * 0

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return torch.full(context.shape, float("inf"))

    monkeypatch.setitem(pretrain.LOSSES, "logistic", lambda logits, rows: Steep.apply(logits))
    train(tiny.settings(recipe, train__steps=1), tmp_path)
    assert tiny.events(tmp_path, "skip")[0]["reason"] == "the gradients of step 1 are not finite"


@pytest.mark.slow
def test_two_ranks_go_back_together(recipe: Path, tmp_path: Path) -> None:
    """Only rank 1 meets the bad numbers, and only its own; both skip, go back and end with the same bits."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import hashlib, sys
from pathlib import Path
from hpcscale import config, ranks
from hpcscale.inputs import pipeline
from hpcscale.models import networks
from hpcscale.train import pretrain
real, calls, build, models = pretrain.LOSSES["logistic"], 0, networks.build, []
def loss(*arguments):
    global calls
    calls += 1
    return real(*arguments) * (float("nan") if ranks.rank() == 1 and calls in (4, 5) else 1)
pretrain.LOSSES["logistic"] = loss
networks.build = lambda *a: models.append(build(*a)) or models[0]
sets = ["divergence.skips=1", "train.steps=8"]
pretrain.train(config.load(Path({str(recipe)!r}), sets), Path({str(tmp_path / "run")!r}))
digest = hashlib.sha256()
for parameter in models[0].parameters():
    digest.update(parameter.detach().numpy().tobytes())
Path({str(tmp_path)!r}, f"rank{{ranks.rank()}}").write_text(digest.hexdigest())
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 0
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    assert [line["step"] for line in tiny.events(tmp_path / "run", "skip")] == [4, 5]
    assert [(line["step"], line["to"]) for line in tiny.events(tmp_path / "run", "rollback")] == [(6, 2)]
