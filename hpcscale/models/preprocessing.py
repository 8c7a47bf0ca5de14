"""How pictures must be prepared for a network. Every checkpoint states it: a mismatch would silently cost
accuracy.

In: how pictures are cut. Out: a record that JSON can carry, and the refusal of a checkpoint that has another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcscale.config import ConfigError, Input

# Of values from 0 to 255, to [-1, 1]: what inputs/decoder.py and ops.normalize do.
MEAN = STD = [127.5, 127.5, 127.5]


def preprocessing(input: Input, stored: int | None) -> dict[str, Any]:
    """A crop of `crop` pixels out of a square of `size` (None: not known), as (value - mean) / std in the
    order of `channels`. stored: side of the pictures as they are stored, None if they differ."""
    return {"size": input.resize or stored, "crop": input.crop, "channels": "RGB", "mean": MEAN, "std": STD}


def refuse_other(metadata: Mapping[str, Any], input: Input, file: Path) -> None:
    """Raises ConfigError where the metadata of a checkpoint's file state other preprocessing than `input`
    says; older checkpoints state none."""
    stated = metadata.get("preprocessing", {})
    for key, here in preprocessing(input, None).items():
        if None not in (here, there := stated.get(key)) and here != there:
            raise ConfigError(
                f"{file}: trained with {key} {there} of its pictures, but config.json says {here}"
            )
