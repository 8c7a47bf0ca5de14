"""Every recipe of the papers trains, small, for 20 steps on two ranks: rates and losses are golden."""

import json
from pathlib import Path
from typing import Any

import pytest
import smoke
from places import GOLDEN
from test_recipes import FACTS

FILE = GOLDEN / "smoke.json"
# Of losses: kernels of other processors round differently, and 20 steps amplify it. With kernels of torch in
# place of oneDNN's, losses differ by up to 1.8 %.
TOLERANCE = 0.03
SOURCE = list(smoke.SOURCES)[-1]  # the photographs, where they are


def golden_curves(folder: Path) -> dict[str, Any]:
    """Of all recipes, on all pictures that are here; of others, as before."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    for source in smoke.SOURCES:
        (folder / source).mkdir()
        found[source] = smoke.curves(folder / source, source, FACTS)
    return found


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH")  # of the thin network: these have shapes of their own
        return smoke.curves(tmp_path_factory.mktemp("smoke"), SOURCE, FACTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
def test_rates_and_losses_are_golden(curves: dict[str, Any], name: str) -> None:
    wanted, found = json.loads(FILE.read_text())[SOURCE][name], curves[name]
    assert found["lr"] == pytest.approx(wanted["lr"], rel=1e-5)
    assert len(found["loss"]) == smoke.STEPS
    assert found["loss"] == pytest.approx(wanted["loss"], rel=TOLERANCE)
