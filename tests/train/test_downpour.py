"""train/downpour.py: asynchronous workers against a slow account of them, on a bowl, and in whole runs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import regression
import tiny
import torch
from runs import assert_same_bits, weights
from test_second_task import train
from thin import own_settings
from torch import nn

from hpcscale.config import Config, ConfigError, check
from hpcscale.train import optim
from hpcscale.train.downpour import Workers

SLOPES = (1.0, 0.1)  # of the bowl 0.5 (w0^2 + 0.1 w1^2)
START = (3.0, -2.0)


def settings(workers: int, fetch: int = 1, push: int = 1, **optimizer: object) -> Config:
    values = {
        "data": {"train": "t", "vocabulary": "v"},
        "optimizer": {"momentum": 0.5, "weight_decay": 0.0, **optimizer},
        "schedule": {"lr": 0.05},
        "train": {"steps": 1000, "batch": 1, "seed": -7},
        "downpour": {"workers": workers, "fetch": fetch, "push": push},
    }
    return check(Config, values, "test")


class Bowl(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([START], dtype=torch.float64))


def path(recipe: Config, steps: int, bad: tuple[int, ...] = ()) -> Iterator[tuple[int, np.ndarray]]:
    """After each step: whose turn it was, and the weights of the server."""
    model = Bowl()
    optimizer = optim.build(model, recipe.optimizer)
    workers = Workers(recipe, model, optimizer)
    optim.set_lr(optimizer, recipe.schedule.lr)
    for step in range(steps):
        with workers.turn(step):
            gradient = model.weight.detach() * torch.tensor([SLOPES], dtype=torch.float64)
        model.weight.grad = gradient if step not in bad else gradient * float("nan")
        optim.step(optimizer, workers.push(torch.tensor(float(step in bad))))
        workers.fetch()
        yield workers.worker, model.weight.detach().numpy()[0].copy()


@pytest.mark.parametrize(("fetch", "push"), [(1, 1), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("bad", [(), (4, 5, 11)])
def test_row_25_gradients_are_of_the_weights_that_a_worker_has_fetched(
    fetch: int, push: int, bad: tuple[int, ...]
) -> None:
    server, velocity = np.array(START), np.zeros(2)
    copies, accrued, turns = [server.copy() for _ in range(4)], [np.zeros(2) for _ in range(4)], [0] * 4
    for step, (worker, found) in enumerate(path(settings(4, fetch, push), 40, bad)):
        turns[worker] += 1
        gradient = copies[worker] * SLOPES if step not in bad else np.zeros(2)
        copies[worker] = copies[worker] - 0.05 * gradient
        accrued[worker] = accrued[worker] + gradient
        if turns[worker] % push == 0 and step not in bad:
            velocity = 0.5 * velocity + accrued[worker]
            server = server - 0.05 * velocity
            accrued[worker] = np.zeros(2)
        if turns[worker] % fetch == 0:
            copies[worker] = server
        np.testing.assert_allclose(found, server, rtol=1e-12, atol=1e-15)


def test_row_25_every_worker_has_a_turn_a_round_in_an_order_that_changes() -> None:
    turns = [worker for worker, _ in path(settings(5), 100)]
    rounds = [tuple(turns[first : first + 5]) for first in range(0, 100, 5)]
    assert all(sorted(each) == [0, 1, 2, 3, 4] for each in rounds)
    assert len(set(rounds)) > 10


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_row_25_a_quadratic_bowl_converges(name: str) -> None:
    recipe = settings(5, name=name, epsilon=0.1, decay=0.9)
    *_, (_, last) = path(recipe, 3000)
    assert np.abs(last).max() < 1e-3 * np.abs(START).max()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("downpour"))


def run(small: Path, folder: Path, **keys: object) -> Path:
    with own_settings():
        regression.train(tiny.settings(small, schedule__lr=0.02, data__held_out=0.3, **keys), folder)
    return folder


def test_row_25_without_staleness_it_is_the_synchronous_run(small: Path, tmp_path: Path) -> None:
    """One worker has always fetched the last weights. The same bits, though it has a copy of its own."""
    found = weights(run(small, tmp_path / "one", downpour__workers=1))
    wanted = weights(run(small, tmp_path / "none"))
    assert {name for name in found if name not in wanted} == {
        f"optimizer.4.{name}.worker0" for name in ("weight", "bias")
    }
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    stale = weights(run(small, tmp_path / "three", downpour__workers=3))
    assert not torch.equal(stale["4.weight"], wanted["4.weight"])


def test_row_25_continued_run_has_the_bits_of_an_uninterrupted_one(small: Path, tmp_path: Path) -> None:
    keys = {"downpour__workers": 2, "downpour__fetch": 2, "downpour__push": 3, "optimizer__name": "rmsprop"}
    run(small, tmp_path / "whole", **keys)
    run(small, tmp_path / "parts", **keys, train__steps=3)
    run(small, tmp_path / "parts", **keys)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_row_25_fetch_and_push_need_workers() -> None:
    with pytest.raises(ConfigError, match=r"downpour.*set 'workers'"):
        settings(0, fetch=2)


@pytest.mark.slow
def test_row_25_two_ranks_are_one_worker_after_the_other(small: Path, tmp_path: Path) -> None:
    """Also with an average of the weights."""
    sets = ("downpour.workers=3", "downpour.fetch=2", "downpour.push=2", "train.average=0.5")
    for count in (1, 2):
        assert train(small, tmp_path / str(count), count, *sets) == 0
    found, wanted = weights(tmp_path / "2"), weights(tmp_path / "1")
    assert found.keys() == wanted.keys()
    assert len([name for name in found if name.startswith("optimizer.4.weight.")]) == 8
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
