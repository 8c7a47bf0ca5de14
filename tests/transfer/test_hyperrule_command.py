"""`transfer hyperrule`: what the rule decides, what the file says instead, and a training by it."""

from pathlib import Path
from typing import Any

import pytest
from grounds import LEAKED, Grounds, plan

from hpcscale import config
from hpcscale.transfer import bit
from hpcscale.transfer.bit import decided, hyperrule
from hpcscale.transfer.hyperrule import rule

SMALL = ("train.batch=8", "train.steps=2", "input.crop=32")


@pytest.fixture(scope="module")
def trained(grounds: Grounds, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("hyperrule")
    said = hyperrule(plan(grounds, *SMALL, method="hyperrule"), out)
    assert said is not None
    return out, said


def test_row_41_the_rule_decides_what_the_file_leaves_open(trained: tuple[Path, dict[str, Any]]) -> None:
    out, said = trained
    assert (said["method"], said["rule"]) == ("hyperrule", "code")
    assert said["instead"] == {"input.crop": 32, "train.steps": 2}
    last, wanted = config.read(out / "last-0" / "config.json"), rule(26, (40, 40), 8)
    assert last.schedule.lr == wanted["schedule"]["lr"] == 0.003 * 8 / 512
    assert list(last.schedule.at) == [1, 2]  # as 201, 301 and 401 of 500
    assert (last.input.resize, last.input.crop, last.train.mixup) == (40, 32, 0.0)  # as 160 to 128
    assert (last.evaluate.resize, last.evaluate.crop) == (32, 32)
    assert (last.model.head, last.optimizer.weight_decay) == ("zero", 0.0)
    assert said["results"][0]["audit"]["duplicates"] == LEAKED


def test_row_41_the_network_decides_the_papers_resolution(
    grounds: Grounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bit, "typical_size", lambda data: (300, 200))
    for network, resize in (("bit_r50x1", 37), ("bit_r152x4", 34)):
        keys = ("hyperrule.rule=paper", f"model.name={network}")
        found, _ = decided(plan(grounds, *keys, source="random", method="hyperrule"))
        assert found["input.resize"] == resize


def test_values_of_the_run_stay(grounds: Grounds) -> None:
    """Those of ImageNet-like pretraining are not those of BiT."""
    keys, instead = decided(plan(grounds, "input.values=imagenet", method="hyperrule"))
    assert "input.values" not in keys
    assert instead["input.values"] == "imagenet"


def test_a_part_does_nothing(grounds: Grounds, tmp_path: Path) -> None:
    assert hyperrule(plan(grounds, *SMALL, method="hyperrule"), tmp_path, (0, 2)) is None
    assert list(tmp_path.iterdir()) == []
