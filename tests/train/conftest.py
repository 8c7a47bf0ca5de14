"""What tests of training share: a thin network, a recipe, a run by it; settings of torch end with a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import thin
import tiny
from thin import own_settings

from hpcscale.train.pretrain import train


@pytest.fixture(scope="module", autouse=True)
def _thin_network() -> Iterator[None]:
    """In tests, in what they share in a module, and in processes that they start."""
    with thin.network():
        yield


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    with own_settings():
        yield


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one rank; only to be read."""
    run = tmp_path_factory.mktemp("whole")
    with thin.network(), own_settings():
        train(tiny.settings(recipe), run)
    return run
