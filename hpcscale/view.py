"""The keys of a recipe that say how pictures come to a model: its sections input and evaluate.

Out: models for config.py. What they say is computed in inputs/ and, of values, in models/preprocessing.py.
"""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from hpcscale.sections import MAY_CHANGE, Section

SIDE = 8192  # pixels; the same limit as of `data ingest --resize`
Values = Literal["signed", "imagenet"]
# Two bounds; TOML and JSON write tuples as lists.
Pair = Annotated[tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]], Strict(False)]


class Input(Section):
    # How a square of `crop` pixels is cut of a picture in training:
    # square     all of the picture, squeezed to `resize` x `resize`, then a random crop (Sun et al. 2017,
    #            section 4.1, 340 -> 299; BiT). Without `resize`: of the square as it is stored.
    # short      the shorter side becomes `resize`, the longer in proportion; then a random crop.
    # inception  a random box, resized to `crop` x `crop` (Mahajan et al. 2018; BiT): `area` of the picture's,
    #            uniform, and width / height in `ratio`, its logarithm uniform.
    method: Literal["square", "short", "inception"] = "square"
    # Side of the square crop that the model sees, in pixels.
    crop: int = Field(299, ge=1, le=SIDE)
    # Side to which pictures are resized before the crop: of method square, unless they are stored so; of
    # method short, always. This costs time: prefer `data ingest --resize` for squares.
    resize: int | None = Field(None, ge=1, le=SIDE)
    # Of method inception: the least and the largest share of the picture's area, and width / height.
    area: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    # What the model reads of channels from 0 to 255:
    # signed    [-1, 1]
    # imagenet  of [0, 1], less the mean (0.485, 0.456, 0.406), over the deviation (0.229, 0.224, 0.225) of
    #           red, green, blue
    values: Values = "signed"
    # Mirror half of the training pictures.
    mirror: bool = True
    # Decoding threads of one rank.
    threads: Annotated[int, MAY_CHANGE] = Field(1, ge=1, le=1024)
    # How many batches are decoded ahead of the model.
    prefetch: Annotated[int, MAY_CHANGE] = Field(2, ge=1, le=1024)

    @model_validator(mode="after")
    def consistent(self) -> "Input":
        if self.method == "inception" and self.resize is not None:
            raise ValueError(
                f"resize is {self.resize}, but method 'inception' resizes its boxes to `crop`; leave it out"
            )
        if self.method == "short" and self.resize is None:
            raise ValueError("method 'short' needs the key 'resize', the length of the shorter side")
        if self.area[0] > self.area[1] or self.area[1] > 1.0:
            raise ValueError(f"'area' is a range of shares of a picture, within (0, 1], found {self.area}")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"'ratio' is the least and the largest width / height, found {self.ratio}")
        return self


class Evaluate(Section):
    # How pictures are cut when a model is evaluated: as `input` says, but the crop is from the centre and
    # never mirrored. Each of these keys replaces that of `input`; a method must stand here if that of `input`
    # is inception.
    # square, short: as of `input`.
    method: Literal["square", "short"] | None = None
    # Side of the square crop, pixels.
    crop: int | None = Field(None, ge=1, le=SIDE)
    # Side to which pictures are resized before.
    resize: int | None = Field(None, ge=1, le=SIDE)


def of_evaluation(input: Input, evaluate: Evaluate) -> Input:
    """`input` with what `evaluate` says. Raises ValueError where that leaves open how pictures are cut."""
    found = input.model_copy(update=evaluate.model_dump(exclude_none=True))
    if found.method == "inception":
        raise ValueError(
            "evaluate.method: missing; input.method 'inception' draws boxes, which an evaluation must not: "
            "set it to 'short', with evaluate.resize, or to 'square'"
        )
    if found.method == "short" and found.resize is None:
        raise ValueError("evaluate.resize: missing; method 'short' needs it, the length of the shorter side")
    return found
