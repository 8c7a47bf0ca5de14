"""WordNets for the tests of labels: a small one, and the real one where it is installed."""

import pytest
import small_wordnet

from hpcscale.labels import wordnet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A WordNet of a few synsets."""
    folder = tmp_path_factory.mktemp("wordnet")
    small_wordnet.write(folder)
    return folder


@pytest.fixture(scope="module")
def real():
    """Sense sets and sense order of WordNet 3.0."""
    if not (wordnet.FOLDER / "data.noun").exists():
        pytest.skip("Debian's wordnet-base is not installed")
    return wordnet.read(), wordnet.read_sense_order()
