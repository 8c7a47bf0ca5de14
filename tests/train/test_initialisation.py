"""Runs that begin with the weights of other runs and files, or with parts of them frozen."""

import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
from runs import assert_same_bits, weights

from hpcscale import config, ranks
from hpcscale.config import ConfigError
from hpcscale.models import checkpoint
from hpcscale.train import pretrain, process, schedule
from hpcscale.train.job import Job
from hpcscale.train.pretrain import train


def begun(settings: config.Config, run: Path) -> Job:
    """The Job of a run before its first step."""
    with process.start(settings, run) as here:
        return pretrain.build(here, pretrain.open_inputs(here.settings))


def model_of(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(run)
    assert found is not None
    return checkpoint.load(found)[0]


def test_row_27_a_run_starts_from_exactly_the_weights_of_another(
    recipe: Path, whole: Path, tmp_path: Path
) -> None:
    """Random, ImageNet and ImageNet+300M initialisation: one recipe, another `model.init`. Weights and
    running averages are those of the run; optimizer and schedule begin anew."""
    keys = {"model__head": "keep", "schedule__warmup": 3, "train__steps": 1}
    random = begun(tiny.settings(recipe, **keys | {"model__head": "new"}), tmp_path / "random")
    job = begun(tiny.settings(recipe, model__init=str(whole), **keys), tmp_path / "second")
    wanted, found = model_of(whole), job.model.state_dict()
    assert found.keys() == wanted.keys()
    assert [name for name in found if not torch.equal(found[name], wanted[name])] == []
    assert not torch.equal(random.model.state_dict()["conv1.weight"], wanted["conv1.weight"])
    buffers = [state["momentum_buffer"] for state in job.optimizer.state.values()]
    assert all(not buffer.any() for buffer in buffers)
    settings = tiny.settings(recipe, model__init=str(whole), **keys)
    train(settings, tmp_path / "second")
    (line,) = tiny.events(tmp_path / "second", "step")
    assert (line["step"], line["samples"]) == (1, 4)
    assert line["lr"] == schedule.lr(settings.schedule, 0, 1) == 0
    third = begun(tiny.settings(recipe, model__init=str(tmp_path / "second")), tmp_path / "third")
    wanted, found = model_of(tmp_path / "second"), third.model.state_dict()
    differing = [name for name in found if not torch.equal(found[name], wanted[name])]
    assert differing == ["fc.weight", "fc.bias"]  # a new head


def test_the_run_tells_and_keeps_what_it_began_with(
    recipe: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny.settings(recipe, model__init=str(whole), train__steps=1), tmp_path)
    newest = checkpoint.find(whole)
    said = capsys.readouterr().err
    assert f"model.init: {newest.file}: 102 tensors taken; classifier fresh\n" in said
    assert "model.init: left: fc.bias, fc.weight\n" in said
    (start,) = tiny.events(tmp_path, "start")
    assert start["init"]["sha256"] == newest.sha256
    assert start["init"]["left"] == ["fc.bias", "fc.weight"]
    assert checkpoint.find(tmp_path).metadata["init"] == newest.sha256


def test_a_run_that_goes_on_does_not_need_its_first_weights(
    recipe: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source may be gone, or train on; the bits are those of an uninterrupted run."""
    source = tmp_path / "source"
    shutil.copytree(whole, source)
    keys = {"model__init": str(source)}
    train(tiny.settings(recipe, **keys), tmp_path / "one")
    train(tiny.settings(recipe, train__steps=2, **keys), tmp_path / "two")
    shutil.rmtree(source)
    capsys.readouterr()
    train(tiny.settings(recipe, **keys), tmp_path / "two")
    assert "taken" not in capsys.readouterr().err
    assert_same_bits(tmp_path / "one", tmp_path / "two")
    (line,) = tiny.events(tmp_path / "two", "resume")
    began = checkpoint.find(tmp_path / "one").metadata["init"]
    assert line["init"] == {"file": str(source), "sha256": began}
    assert checkpoint.find(tmp_path / "two").metadata["init"] == began


def test_a_run_whose_first_weights_changed_is_refused(recipe: Path, whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(model_of(whole), file)
    keys = {"model__init": str(file)}
    train(tiny.settings(recipe, train__steps=1, **keys), tmp_path / "run")
    torch.save(model_of(whole) | {"fc.bias": torch.ones(5)}, file)
    with pytest.raises(
        ConfigError, match=r"weights\.pth is not the file that the run began with: its SHA-256"
    ):
        train(tiny.settings(recipe, train__steps=2, **keys), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"model\.init: .*weights\.pth' there, None here"):
        train(tiny.settings(recipe, train__steps=2), tmp_path / "run")


def test_what_is_frozen_keeps_its_bits(recipe: Path, whole: Path, tmp_path: Path) -> None:
    """Weights and running averages; also when the run stops and goes on. Everything else is trained."""
    frozen = ("conv1", "bn1", "layer1")
    keys = {"model__init": str(whole), "model__freeze": frozen}
    train(tiny.settings(recipe, train__steps=3, **keys), tmp_path / "one")
    train(tiny.settings(recipe, train__steps=2, **keys), tmp_path / "two")
    train(tiny.settings(recipe, train__steps=3, **keys), tmp_path / "two")
    assert_same_bits(tmp_path / "one", tmp_path / "two")
    before, after = model_of(whole), model_of(tmp_path / "one")
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert same >= {name for name in after if name.startswith(tuple(f"{part}." for part in frozen))}
    trained = {name for name in after if name.startswith(("layer2.", "layer3.", "layer4.", "fc."))}
    assert not same & {name for name in trained if "conv" in name or "running" in name or "fc." in name}
    assert not any(name.startswith("optimizer.conv1.") for name in weights(tmp_path / "one"))


def test_what_cannot_be_begun_leaves_no_trace(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"model.freeze: no parameter is 'layer9' or below it; near: layer"):
        train(tiny.settings(recipe, model__freeze=["layer9"]), run)
    with pytest.raises(checkpoint.CheckpointError, match=r"none\.pth: cannot be read"):
        train(tiny.settings(recipe, model__init=str(tmp_path / "none.pth")), run)
    assert not run.exists()


@pytest.mark.slow
def test_an_error_of_the_rank_that_reads_is_told_by_all(recipe: Path, whole: Path, tmp_path: Path) -> None:
    """And where there is none, all ranks begin with the same weights, or with rows of the same."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
import torch
from hpcscale import config, files, ranks
from hpcscale.train import pretrain, process
place = Path({str(tmp_path)!r})
def begun(init, *more):
    settings = config.load(Path({str(recipe)!r}), [f"model.init={{init}}", "model.head=keep", *more])
    with process.start(settings, place / "run") as here:
        return pretrain.build(here, pretrain.open_inputs(here.settings))
model = begun({str(whole)!r}).model.state_dict()
ours = ranks.gather(model["fc.weight"].numpy().reshape(1, -1))
assert (ours[0] == ours[1]).all()
rows = begun({str(whole)!r}, "model.slices=ranks").model.state_dict()["fc.weight"]
assert len(rows) == 3
assert (ranks.gather(rows.numpy())[:5] == ours[0].reshape(5, -1)).all()
try:
    begun(place / "none.pth")
except files.Told as error:
    (place / f"rank{{ranks.rank()}}").write_text(f"{{error.code}} {{error}}")
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 0
    first, second = ((tmp_path / f"rank{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith(f"1 {tmp_path}/none.pth: cannot be read: ")
