"""What `hpcscale bench` measures and says: parts alone and together, on a recipe or on made-up pictures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import thin
import tiny
from click.testing import CliRunner
from thin import own_settings

from hpcscale import config
from hpcscale.bench import measure, pictures
from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.labels import vocabulary
from hpcscale.models import networks
from hpcscale.progress import none
from hpcscale.train import process
from tests.train.runs import watch_samples


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A thin network; nothing may be left in the folder where the user is."""
    monkeypatch.setattr(process, "keep_memory", lambda: None)
    monkeypatch.chdir(tmp_path)
    with thin.network(), own_settings():
        yield
    assert list(tmp_path.iterdir()) == []


def bench(*words: object) -> Any:
    return CliRunner().invoke(main, ["bench", *map(str, words)])


def test_full_says_each_part_alone_and_what_together_costs(recipe: Path) -> None:
    result = bench("full", recipe, "--steps", 5, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {key: found[key] for key in ("ranks", "device", "model", "batch", "steps")} == {
        "ranks": 1, "device": "cpu", "model": "resnet50", "batch": 4, "steps": 8,
    }  # fmt: skip
    alone = [found[part]["samples_per_second"] for part in ("loader", "step")]
    together = found["full"]["samples_per_second"]
    assert found["overhead"]["of_slower"] == pytest.approx(min(alone) / together - 1)
    assert found["overhead"]["of_step"] == pytest.approx(alone[1] / together - 1)
    for part in ("step", "full"):
        assert sum(found[part][name] for name in measure.SHARES) == pytest.approx(1, abs=0.1)
        assert found[part]["ms"] == pytest.approx(4000 / found[part]["samples_per_second"])
    described = bench("--help").output
    assert [key for key in (*found, *found["allreduce"], *found["full"]) if key not in described] == []


def test_a_step_alone_has_one_batch_and_a_loader_alone_no_step(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_samples(monkeypatch)
    assert "step alone" in bench("step", recipe, "--steps", 4).stdout
    assert len(seen) == 1
    monkeypatch.setattr(measure.loop, "run", None)
    assert "samples/s\n" in bench("loader", recipe, "--steps", 4).stdout
    assert len(seen) == 1 + measure.WINDOWS * measure.LOADS


def test_the_first_window_does_not_count(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, steps = 0.0, 0

    def step() -> None:
        nonlocal now, steps
        now += 100.0 if steps < 3 else (2.0, 3.0, 2.0, 7.0)[steps // 3 - 1]
        steps += 1

    monkeypatch.setattr(measure, "perf_counter", lambda: now)
    with process.start(tiny.settings(recipe), Path()) as here:
        assert measure._median(here, step, 3) == 2.5
    assert steps == 15


def test_what_asks_to_stop_is_heard(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.StopRequest, "requested", True)
    for what in ("loader", "step"):
        result = bench(what, recipe, "--steps", 4)
        assert (result.exit_code, "interrupted" in result.output) == (75, True)


def test_what_is_wrong_is_said(recipe: Path) -> None:
    for words, code, message in [
        (("all",), 2, "is not one of"),
        (("step", "none.toml"), 2, "none.toml"),
        (("step", recipe, "--steps", 3), 2, "3 is not in the range"),
        (("step", recipe, "--ranks", 3), 2, "which 3 ranks cannot share"),
        (("loader", recipe, "--set", "data.train=none"), 1, "none"),
    ]:
        result = bench(*words)
        assert (result.exit_code, message in result.output) == (code, True), result.output


def test_made_up_pictures_cost_what_photographs_do(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photographs of that size have 35 KB (imagenet-sample)."""
    monkeypatch.setattr(pictures, "PICTURES", 12)
    place = tmp_path_factory.mktemp("made")
    recipe = pictures.make(place, 4, none)
    data = open_data(place / "data")
    sizes = [len(jpeg) for jpeg in data.jpegs(np.arange(data.samples))]
    assert 30_000 < np.mean(sizes) < 40_000
    assert len(vocabulary.load(place / "vocabulary.json").classes) == 12 * 4
    result = bench("loader", recipe, "--set", "input.crop=32", "--steps", 4)
    assert "loader alone" in result.stdout


def test_without_a_recipe_there_are_made_up_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES", 3)
    result = bench("step", "--set", "input.crop=32", "--set", "train.threads=1", "--steps", 4, "--json")
    assert json.loads(result.stdout)["batch"] == 8


@pytest.mark.slow
def test_ranks_sum_the_gradients_of_the_network(recipe: Path) -> None:
    command = [sys.executable, "-m", "hpcscale", "bench", "allreduce", recipe, "--ranks", 2, "--json"]
    done = subprocess.run([*map(str, command), "--steps", "4"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    network = networks.build(config.Model(), 5)
    count = sum(parameter.numel() for parameter in network.parameters()) + 2  # that travel with them
    assert (found["ranks"], found["allreduce"]["megabytes"]) == (2, pytest.approx(4e-6 * count))
    assert found["allreduce"]["megabytes_per_second"] > 0
