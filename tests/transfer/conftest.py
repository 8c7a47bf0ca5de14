"""What tests of transfer share: a thin network, a run to start from, a training set and a test set."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import thin
import tiny
from grounds import LEAKED, Grounds
from thin import own_settings

from hpcscale.ingest.packing import Packing, ingest
from hpcscale.train.pretrain import train


@pytest.fixture(scope="module", autouse=True)
def _thin_network() -> Iterator[None]:
    with thin.network():
        yield


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    with own_settings():
        yield


@pytest.fixture(scope="session")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Grounds:
    """Only to be read, except that tests may move the test set for a while."""
    folder = tmp_path_factory.mktemp("grounds")
    for seed, name in enumerate(("before", "target", "test")):
        (folder / name).mkdir()
        tiny.make(folder / name, seed)
    with thin.network(), own_settings():
        train(tiny.settings(folder / "before" / "tiny.toml"), folder / "run")
    return Grounds(folder / "run", _file(folder), _leaking(folder))


def _file(folder: Path) -> Path:
    recipe = (folder / "target" / "tiny.toml").read_text().replace("lr = 0.002\n", "")
    file = folder / "transfer.toml"
    file.write_text(
        recipe.replace("steps = 6\n", "")
        + f'[target]\nname = "fruit"\ntest = "{folder / "packed"}"\n'
        + "[grid]\nlr = [0.001, 0.01]\nsteps = [2, 3]\n"
    )
    return file


def _leaking(folder: Path) -> Path:
    """The test set, with pictures of the pretraining set in it under names of their own."""
    source = folder / "test" / "pictures"
    lines = [json.loads(line) for line in (source / "manifest.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines[:LEAKED]):
        shutil.copy(folder / "before" / "pictures" / f"{number + 7:02}.jpg", source / f"leak{number}.jpg")
        line["image"] = f"leak{number}.jpg"
    (source / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest(source, folder / "packed", packing=Packing(40), workers=1)
    return folder / "packed"
