"""Runs over a selection, with wrong labels and rare classes repeated: what is seen, shown, and resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from runs import assert_same_bits, watch_samples

from hpcscale.config import ConfigError
from hpcscale.data.order import identities, keyed
from hpcscale.inputs.pipeline import Batch
from hpcscale.samples.make import make_index
from hpcscale.train import pretrain
from hpcscale.train.pretrain import open_inputs, train

KEYS: dict[str, Any] = {
    "selection__size": 14, "noise__share": 0.5, "sampling__name": "uniform", "sampling__method": "two-stage",
    "data__held_out_per_class": 2,
}  # fmt: skip


def test_a_run_goes_on_with_the_same_bits_and_an_index_changes_nothing(recipe: Path, tmp_path: Path) -> None:
    train(tiny.settings(recipe, **KEYS), tmp_path / "whole")
    train(tiny.settings(recipe, **KEYS, train__steps=3), tmp_path / "parts")
    make_index(tiny.settings(recipe, **KEYS), tmp_path / "index.h5")
    index = {"data__index": str(tmp_path / "index.h5")}
    train(tiny.settings(recipe, **KEYS, **index), tmp_path / "parts")
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    (start,) = tiny.events(tmp_path / "whole", "start")
    told = {"samples": tiny.PICTURES, "dropped": 0, "unlabelled": 0, "trained_on": 14, "held_out": 6}
    assert start["data"] == told
    with pytest.raises(ConfigError, match=r"noise\.share: 0\.5 there, 0\.25 here"):
        train(tiny.settings(recipe, **(KEYS | {"noise__share": 0.25}), train__steps=8), tmp_path / "parts")


def test_only_chosen_samples_are_seen(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny.settings(recipe, **KEYS)
    chosen = open_inputs(settings).chosen
    seen = watch_samples(monkeypatch)
    train(settings, tmp_path / "run")
    assert {sample for batch in seen for sample in batch} <= set(chosen.samples.take(np.arange(14)).tolist())
    assert [sample for batch in seen for sample in batch] == chosen.order.samples_at(np.arange(24))[
        0
    ].tolist()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_targets_are_those_of_the_replaced_classes_and_their_ancestors(recipe: Path, share: float) -> None:
    settings = tiny.settings(recipe, noise__share=share, train__batch=tiny.PICTURES)
    inputs = open_inputs(settings)
    data, noise = inputs.data, inputs.chosen.noise
    assert (noise is None) == (share == 0)
    samples = np.arange(data.samples)
    batch = Batch(torch.empty(0), *data.tag_rows(samples), samples)
    rows = pretrain._target_rows(settings, inputs, torch.device("cpu"))(batch)
    leaves = {"apple": 2, "pear": 3, "dog": 4}
    above = {2: {0, 1}, 3: {0, 1}, 4: {0}}
    own = np.array([leaves[tiny.TAGS[sample % 3]] for sample in samples], np.int32)
    if noise is not None:
        keys = keyed(identities(data.source_digests(samples)), settings.noise.seed)
        own = noise(keys, np.arange(len(samples) + 1), own)[1]
    expected = np.zeros((len(samples), 5), np.float32)
    for sample, c in enumerate(own.tolist()):
        expected[sample, [c, *above[c]]] = 1
    np.testing.assert_array_equal(rows.numpy(), expected)
    changed = int((own != [leaves[tiny.TAGS[sample % 3]] for sample in samples]).sum())
    assert changed == 0 if share == 0 else changed == len(samples) if share == 1 else 4 < changed < 22


def test_a_run_with_a_named_split_goes_on_with_the_same_names_wherever_they_lie(
    recipe: Path, tmp_path: Path
) -> None:
    def named(file: str, *samples: int) -> dict[str, Any]:
        (tmp_path / file).write_text("".join(f"{sample:02}.jpg\n" for sample in samples))
        return {"data__held_out_names": str(tmp_path / file)}

    train(tiny.settings(recipe, **named("one.txt", 1, 2, 3), train__steps=3), tmp_path / "run")
    train(tiny.settings(recipe, **named("moved.txt", 3, 2, 1)), tmp_path / "run")
    (evaluation,) = tiny.events(tmp_path / "run", "evaluation")[-1:]
    assert (evaluation["set"], evaluation["step"]) == ("held_out", 6)
    assert {event["data"]["held_out"] for event in tiny.events(tmp_path / "run", "start")} == {3}
    for keys in (named("other.txt", 1, 2, 4), {}):
        with pytest.raises(ConfigError, match=r"data\.held_out_names.*: not the contents that"):
            train(tiny.settings(recipe, **keys, train__steps=8), tmp_path / "run")
