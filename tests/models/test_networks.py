"""The table of networks, and the one way to a trained one: its weights, its pictures, its mode."""

from pathlib import Path
from typing import get_args

import pytest
import tiny
import torch
from torch import nn

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.models import checkpoint, networks
from hpcscale.models.shapes import SHAPES
from hpcscale.train.pretrain import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps; pictures are stored at 40 pixels."""
    folder = tmp_path_factory.mktemp("networks")
    recipe = tiny.make(folder)
    train(tiny.settings(recipe, train__steps=2, data__held_out=0.3, evaluate__crop=36), folder / "run")
    return folder / "run"


def test_the_table_has_every_name_of_a_recipe() -> None:
    names = get_args(config.Model.model_fields["name"].annotation)
    assert set(names) == set(networks.MODELS) == set(SHAPES)


def test_every_checkpoint_says_what_its_network_must_be_shown(run: Path) -> None:
    found = checkpoint.find(run)
    assert found.metadata["preprocessing"] == {
        "method": "square", "size": 40, "crop": 36, "channels": "RGB",
        "mean": [127.5] * 3, "std": [127.5] * 3, "stride": "3x3",
    }  # fmt: skip


def test_a_trained_network_is_what_the_run_has_left(run: Path) -> None:
    trained = networks.load(run)
    found = next(checkpoint.whole(run))
    stored = checkpoint.load(found)[0]
    assert trained.model.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in trained.model.state_dict().items())
    assert not trained.model.training
    assert trained.checkpoint == found
    assert (trained.input.crop, trained.settings.input.crop) == (36, 32)
    same = networks.load(found.file)
    assert same.checkpoint == found


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("evaluate", "crop", 35, "trained with crop 36, but config.json says 35"),
        ("evaluate", "resize", 64, "trained with size 40, but config.json says 64"),
    ],
)
def test_other_preprocessing_is_refused(
    run: Path, tmp_path: Path, section: str, key: str, value: int, message: str
) -> None:
    settings = config.read(run / "config.json").model_dump(mode="json")
    settings[section][key] = value
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    (tmp_path / "config.json").write_text(config.dump(config.check(config.Config, settings, "test")))
    with pytest.raises(ConfigError, match=message):
        networks.load(tmp_path)


def test_evaluating_leaves_every_part_in_its_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model[1].eval()  # frozen
    with networks.evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, False, False]
