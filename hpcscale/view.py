"""The keys of a recipe that say how pictures come to a model: its sections input and evaluate.

Out: models for config.py. What they say is computed in inputs/.
"""

from typing import Annotated

from pydantic import Field

from hpcscale.sections import MAY_CHANGE, Section

SIDE = 8192  # pixels; the same limit as of `data ingest --resize`


class Input(Section):
    # Side of the square crop that the model sees, in pixels.
    crop: int = Field(299, ge=1, le=SIDE)
    # Resize every picture to a square of this side before the crop, unless it is stored so. This costs two to
    # three times as much as decoding: prefer `data ingest --resize`.
    resize: int | None = Field(None, ge=1, le=SIDE)
    # Mirror half of the training pictures.
    mirror: bool = True
    # Decoding threads of one rank.
    threads: Annotated[int, MAY_CHANGE] = Field(1, ge=1, le=1024)
    # How many batches are decoded ahead of the model.
    prefetch: Annotated[int, MAY_CHANGE] = Field(2, ge=1, le=1024)


class Evaluate(Section):
    # How pictures are cut when a model is evaluated: a crop from the centre, never mirrored. Without these
    # keys, the sizes are those of `input`.
    # Side of the square crop, pixels.
    crop: int | None = Field(None, ge=1, le=SIDE)
    # Side of the square to which every picture is resized before.
    resize: int | None = Field(None, ge=1, le=SIDE)
