"""Planted changes: each is what its name says, and chance comes from the picture and the seed."""

from pathlib import Path

import numpy as np
from smooth import picture

from hpcscale.dedup.study.planted import TRANSFORMATIONS, plant


def test_the_changes_change_what_they_say() -> None:
    image = picture(0)
    draw = np.random.default_rng(0)
    changed = {name: change(image, draw) for name, change in TRANSFORMATIONS.items()}
    assert changed["resize x 0.25"].size == (100, 75)
    assert changed["crop 20 %"].size == (320, 240)
    assert changed["border 5 % black"].size == (430, 330)
    assert changed["rotate by 90"].size == (300, 400)
    pixels = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(changed["flip"]), pixels[:, ::-1])
    grey = np.asarray(changed["grey"])
    assert (grey == grey[:, :, :1]).all()
    top = np.asarray(changed["text"])[:200]
    np.testing.assert_array_equal(top, pixels[:200])
    assert all(other.size != image.size or (np.asarray(other) != pixels).any() for other in changed.values())


def test_another_seed_is_another_chance(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    one, again, other = (plant(str(tmp_path / "0.png"), 0, -1, seed, 0, 0).codes for seed in (1, 1, 2))
    assert one == again
    assert one != other
