"""What a checkpoint says of its pictures, and all that read one refuse another stride or mean."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from hpcscale import export
from hpcscale.config import Config, ConfigError
from hpcscale.dedup.embeddings import embed_source
from hpcscale.evaluate.classify import evaluate_run
from hpcscale.models import networks
from hpcscale.models.preprocessing import DEVIATIONS, MEANS, preprocessing
from hpcscale.review import noise
from hpcscale.train.pretrain import train

CHANGES = {
    "stride": "1x1",
    "mean": MEANS["imagenet"],
    "std": DEVIATIONS["imagenet"],
    "channels": "BGR",
    "crop": 31,
    "size": 41,
    "method": "short",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocessing")
    settings = tiny.settings(tiny.make(folder), train__steps=2, input__resize=40, data__held_out=0.3)
    train(settings, folder / "run")
    return folder


def start(place: Path, run: Path) -> None:
    recipe = tiny.settings(place / "tiny.toml", train__steps=2, input__resize=40, model__init=str(run))
    train(recipe, place / "second")


# All that take weights out of a run folder.
LOADERS: dict[str, Callable[[Path, Path], Any]] = {
    "load": lambda place, run: networks.load(run),
    "evaluate": lambda place, run: evaluate_run(run),
    "export": lambda place, run: export.export(run, place / "out.safetensors"),
    "embed": lambda place, run: embed_source(place / "data", place / "out.h5", run),
    "noise": lambda place, run: noise.browse(run, place / "out.html"),
    "init": start,
}


def changed(made: Path, place: Path, key: str) -> Path:
    """The run, as if it had been trained with something else."""
    run = place / "run"
    shutil.copytree(made / "run", run, copy_function=lambda one, other: Path(other).symlink_to(one))
    record = run / "checkpoints" / "step-00000002.json"
    text = record.read_text()
    record.unlink()
    record.write_text(text)
    tiny.rewrite(record, lambda content: content["metadata"]["preprocessing"].update({key: CHANGES[key]}))
    return run


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("key", ["stride", "mean", "std", "channels"])
def test_row_12_weights_of_other_preprocessing_are_refused(
    made: Path, tmp_path: Path, key: str, loader: str
) -> None:
    """Whoever reads them; of rows 13 and 14 too."""
    run = changed(made, tmp_path, key)
    (tmp_path / "data").symlink_to(made / "data")
    (tmp_path / "tiny.toml").symlink_to(made / "tiny.toml")
    with pytest.raises(ConfigError, match=f"trained with {key} "):
        LOADERS[loader](tmp_path, run)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("key", ["crop", "size", "method"])
def test_a_run_is_judged_as_its_checkpoint_says(made: Path, tmp_path: Path, key: str) -> None:
    """To start from it with another crop is allowed, and told (test_surgery.py)."""
    with pytest.raises(ConfigError, match=rf"trained with {key} .*, but config.json says"):
        networks.load(changed(made, tmp_path, key))


def test_it_says_all_that_its_configuration_does() -> None:
    settings = Config.model_validate(
        {
            "data": {"train": "x", "vocabulary": "y"}, "schedule": {"lr": 0.1},
            "train": {"steps": 1, "batch": 1},
            "input": {"crop": 20, "values": "imagenet", "method": "inception"},
            "evaluate": {"method": "short", "resize": 30, "crop": 24}, "model": {"stride": "1x1"},
        }
    )  # fmt: skip
    assert preprocessing(settings, 40) == {
        "method": "short", "size": 30, "crop": 24, "channels": "RGB",
        "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "stride": "1x1",
    }  # fmt: skip
