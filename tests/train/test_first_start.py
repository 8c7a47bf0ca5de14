"""What a run is bound to: nothing before its first step; then its configuration and what it reads."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from click.testing import CliRunner
from thin import own_settings

from hpcscale import config, ranks
from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.data import named, same
from hpcscale.data.order import Whole
from hpcscale.data.store import DataSet, open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.inputs import pipeline
from hpcscale.models import checkpoint
from hpcscale.models import device as devices
from hpcscale.train import process, run_folder
from hpcscale.train.pretrain import train

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same names, tags and classes, but other pictures."""
    return tiny.make(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def made(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after two steps."""
    run = tmp_path_factory.mktemp("made")
    with own_settings():
        train(tiny.settings(recipe, train__steps=2, data__held_out=0.3), run)
    return run


def cli(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


def start(recipe: Path, run: Path, *settings: str) -> Any:
    return cli("train", run, "--config", recipe, *(word for each in settings for word in ("--set", each)))


# ---- before the first step ----


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("data.train=none", 1, "none"),
        ("data.vocabulary=none.json", 1, "none.json"),
        ("data.drop=none.txt", 1, "none.txt"),
        ("data.validation=none", 1, "none"),
        ("data.held_out=0.99", 2, "data.held_out: 0.99 of the 26 samples of"),
        ("data.held_out=0.01", 2, "data.held_out: 0.01 of the 26 samples of"),
        ("input.crop=41", 2, "input.crop: found 41"),
        pytest.param("train.device=cuda", 1, "torch finds no GPU", marks=NO_GPU),
    ],
)
def test_what_cannot_be_used_leaves_no_run(
    recipe: Path, tmp_path: Path, setting: str, code: int, said: str
) -> None:
    result = start(recipe, tmp_path / "run", setting)
    assert (result.exit_code, said in result.output) == (code, True), result.output
    assert not (tmp_path / "run").exists()


def test_a_drop_list_that_leaves_nothing_is_an_error_of_the_list(recipe: Path, tmp_path: Path) -> None:
    everything = [f"{i:02}.jpg\n" for i in range(tiny.PICTURES)]
    (tmp_path / "drop.txt").write_text("".join(everything))
    result = start(recipe, tmp_path / "run", f"data.drop={tmp_path / 'drop.txt'}")
    assert (result.exit_code, "left to train on; of the 26" in result.output) == (1, True), result.output
    assert "drop.txt drops 26" in result.output
    held_out = ["data.held_out=0.05", f"data.drop={tmp_path / 'drop.txt'}"]  # one sample
    (sample,) = Whole(tiny.PICTURES, 0, 0.05).held_out_samples()
    (tmp_path / "drop.txt").write_text(f"{sample:02}.jpg\n")
    result = start(recipe, tmp_path / "run", *held_out)
    assert (result.exit_code, "left that is held out" in result.output) == (1, True), result.output


def opened(recipe: Path) -> DataSet:
    return open_data(recipe.parent / "data")


def test_validation_pictures_smaller_than_the_crop_are_told_at_once(recipe: Path, tmp_path: Path) -> None:
    ingest(recipe.parent / "pictures", tmp_path / "small", packing=Packing(20), workers=1)
    result = start(recipe, tmp_path / "run", f"data.validation={tmp_path / 'small'}")
    assert (result.exit_code, "small are 20 x 20" in result.output) == (2, True), result.output
    assert not (tmp_path / "run").exists()


def test_a_start_that_fails_before_its_first_step_binds_the_run_to_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def fail(*_: Any, **__: Any) -> Any:
        raise ConfigError("nothing can be decoded")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_batches", fail)
        result = start(recipe, run, "schedule.lr=0.5", "train.seed=9")
    assert (result.exit_code, "nothing can be decoded" in result.output) == (2, True), result.output
    assert config.read(run / "config.json").train.seed == 9
    result = start(recipe, run, "train.steps=1")
    assert result.exit_code == 0, result.output
    assert config.read(run / "config.json").train.seed == 3
    result = start(recipe, run, "train.steps=1", "train.seed=9")
    assert (result.exit_code, "train.seed: 3 there, 9 here" in result.output) == (2, True), result.output


def test_a_first_step_binds_even_without_a_checkpoint(recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for line, bound in [
        ('{"event": "start", "step": 0}', False),
        ('{"event": "first_step", "step": 0}', True),
        ('{"event": "step", "step": 1}', True),
        ('{"event": "step", "step": "x"}', False),
        ("[" * 100_000, False),
    ]:
        run_folder.keep(tmp_path, tiny.settings(recipe))
        log.write_text(line + "\n")
        if bound:
            with pytest.raises(ConfigError, match="started with another configuration"):
                run_folder.agree(tmp_path, tiny.settings(recipe, train__seed=8))
        else:
            run_folder.agree(tmp_path, tiny.settings(recipe, train__seed=8))


# ---- the same contents ----


def test_a_run_does_not_go_on_with_other_pictures_of_the_same_names(
    recipe: Path, other: Path, made: Path, tmp_path: Path
) -> None:
    """It took exchanged pictures for its own."""
    run = shutil.copytree(made, tmp_path / "run")
    result = start(recipe, run, "train.steps=4", "data.held_out=0.3", f"data.train={other.parent / 'data'}")
    said = "data.train: not the contents that"
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert "step-00000002" in result.output
    copy = shutil.copytree(recipe.parent / "data", tmp_path / "elsewhere")
    result = start(recipe, run, "train.steps=3", "data.held_out=0.3", f"data.train={copy}")
    assert result.exit_code == 0, result.output


def edited(made: Path, run: Path, **data: Path) -> Path:
    """A copy of a run that finds its data elsewhere."""
    shutil.copytree(made, run)
    content = json.loads((run / "config.json").read_text())
    content["data"].update({key: str(value) for key, value in data.items()})
    (run / "config.json").write_text(json.dumps(content))
    return run


def swapped(vocabulary: Path, out: Path) -> Path:
    """The same classes, but apples are called pears and pears apples."""
    text = vocabulary.read_text().replace('["apple"]', "?").replace('["pear"]', '["apple"]')
    out.write_text(text.replace("?", '["pear"]'))
    assert out.read_text() != vocabulary.read_text()
    return out


def test_neither_training_nor_evaluation_takes_other_contents(
    recipe: Path, other: Path, made: Path, tmp_path: Path
) -> None:
    labels = swapped(recipe.parent / "vocabulary.json", tmp_path / "labels.json")
    before = (made / "config.json").read_bytes()
    result = start(recipe, made, "train.steps=4", "data.held_out=0.3", f"data.vocabulary={labels}")
    assert (result.exit_code, "data.vocabulary: not the contents" in result.output) == (2, True)
    assert (made / "config.json").read_bytes() == before
    for key, value, place in [("train", other.parent / "data", "data.train"),
                              ("vocabulary", labels, "data.vocabulary")]:  # fmt: skip
        run = edited(made, tmp_path / key, **{key: value})
        result = cli("evaluate", run)
        assert (result.exit_code, f"{place}: not the contents that" in result.output) == (2, True), key
    result = cli(
        "evaluate", edited(made, tmp_path / "validation", validation=other.parent / "data"), "--json"
    )
    assert result.exit_code == 0, result.output  # other data than the training's, as they should be
    assert json.loads(result.stdout)["digest"] != checkpoint.latest(made).metadata["data"]  # type: ignore[union-attr]


def test_a_rank_that_reads_a_stale_copy_says_so(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ranks.broadcast_object

    def of_rank_0(value: Any) -> Any:
        return value | {"data": "another"} if "data" in value and "versions" in value else real(value)

    monkeypatch.setattr(ranks, "broadcast_object", of_rank_0)
    with pytest.raises(ConfigError, match=r"data\.train: rank 0 reads other contents there than rank 0"):
        train(tiny.settings(recipe), tmp_path / "run")


def test_the_drop_list_is_read_once(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each evaluation read it twice, with all names of the data set."""
    (tmp_path / "drop.txt").write_text("00.jpg\n")
    calls = []

    def counted(names: named.NameList, data: DataSet, index: int) -> Any:
        calls.append(index)
        return rows(names, data, index)

    rows = named.NameList.rows
    monkeypatch.setattr(named.NameList, "rows", counted)
    keys = {"data__drop": str(tmp_path / "drop.txt"), "data__held_out": 0.3, "train__evaluate_every": 1}
    train(tiny.settings(recipe, train__steps=2, **keys), tmp_path / "run")
    assert len(tiny.events(tmp_path / "run", "evaluation")) == 2
    assert len(calls) == 1
    assert cli("evaluate", tmp_path / "run").exit_code == 0
    assert len(calls) == 2


@pytest.mark.slow
def test_rank_0_says_which_checkpoint_is_evaluated(made: Path, tmp_path: Path) -> None:
    """Each rank looked for the newest by itself; beside a running training they found two models."""
    run = shutil.copytree(made, tmp_path / "run")
    alone = json.loads(cli("evaluate", run, "--json", "--batch", "4").stdout)
    shutil.rmtree(run / "evaluations")
    program = tmp_path / "program.py"
    program.write_text(
        f"""
from pathlib import Path
from hpcscale import config, ranks
from hpcscale.models import checkpoint
from hpcscale.evaluate import classify
ranks.init()
def fail(*_):
    raise AssertionError("not by this rank")
hashed, real = [], checkpoint._digest
def once(file):
    assert not hashed, "hashed twice"
    hashed.append(file)
    return real(file)
checkpoint._digest = once
if ranks.rank():
    checkpoint.latest = checkpoint.load = checkpoint._digest = config.read = fail
classify.evaluate_run(Path({str(run)!r}), None, 4)
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 0
    found = json.loads((run / "evaluations" / "held_out-00000002" / "metrics.json").read_text())
    assert found["metrics"].pop("loss") == pytest.approx(alone["metrics"].pop("loss"), rel=1e-6)
    assert found["metrics"] == alone["metrics"]


# ---- the device ----


@NO_GPU
def test_a_gpu_that_is_not_there_is_one_error_everywhere(recipe: Path, made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made, tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    content["train"]["device"] = "cuda"
    (run / "config.json").write_text(json.dumps(content))
    data = recipe.parent / "data"
    for words in (
        ["train", tmp_path / "new", "--config", recipe, "--set", "train.device=cuda"],
        ["evaluate", run],
        ["dedup", "embed", data, tmp_path / "out.h5", "--checkpoint", run],
        ["dedup", "calibrate", data, tmp_path / "calibration", "--samples", 2, "--embeddings", run],
    ):
        result = cli(*words)
        assert result.exit_code == 1, (words, result.output)
        assert "train.device is 'cuda', but torch finds no GPU" in result.output


@pytest.mark.parametrize(("visible", "local_rank", "index"), [(1, 0, 0), (1, 3, 0), (4, 3, 3)])
def test_a_single_visible_gpu_is_device_0(
    monkeypatch: pytest.MonkeyPatch, visible: int, local_rank: int, index: int
) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(ranks, "local_rank", lambda: local_rank)
    monkeypatch.setattr(ranks, "local_size", lambda: 4)
    for wanted in ("cuda", "auto"):
        assert devices.choose(wanted) == torch.device("cuda", index)
    assert current == [torch.device("cuda", index)] * 2
    assert devices.choose("cpu") == torch.device("cpu")


@pytest.mark.parametrize("before", [None, ":16:8"])
def test_cublas_is_made_deterministic_before_it_starts(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    seen: list[str | None] = []

    def choose(wanted: str) -> torch.device:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return torch.device("cpu")

    monkeypatch.setattr(devices, "choose", choose)
    process.prepare(tiny.settings(recipe))
    assert seen == [before or ":4096:8"]
    assert torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that monkeypatch takes it away again


def test_all_ranks_train_by_the_configuration_of_rank_0(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe that is edited while ranks start."""
    sent = tiny.settings(recipe, train__seed=5).model_dump(mode="json")
    monkeypatch.setattr(ranks, "broadcast_object", lambda value: sent)
    assert same.settings(tiny.settings(recipe), config.Config).train.seed == 5
