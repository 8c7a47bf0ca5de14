"""The keys of a recipe that say what is trained on: its sections data, selection, noise and sampling.

Out: models for config.py and catalogue.py. What they choose is computed in samples/.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcscale.sections import MAY_CHANGE, Place, Section, Seed


class Data(Section):
    # Folder written by `hpcscale data ingest`, or a name from the catalogue, such as "train-IG-940M-1.5k".
    train: Annotated[Place, MAY_CHANGE]
    # File written by `hpcscale labels build`.
    vocabulary: Annotated[Place, MAY_CHANGE]
    # Samples to which the vocabulary gives no class. drop: they are neither trained on nor held out; keep:
    # they are, as pictures on which no class is.
    unlabelled: Literal["drop", "keep"] = "drop"
    # File written by `hpcscale data index`: what this recipe trains on, made once. A large set needs it
    # wherever samples are left out, or are not drawn as they come.
    index: Annotated[Place | None, MAY_CHANGE] = None
    # Another data set to evaluate on; without it, the held-out part of `train` is used.
    validation: Annotated[Place | None, MAY_CHANGE] = None
    # Share of `train` that training never sees, chosen by a keyed permutation of the samples.
    held_out: float = Field(0.0, ge=0.0, lt=1.0)
    # Hold out samples of each class instead, at least one: its share `held_out`, or so many.
    stratified: bool = False
    held_out_per_class: int | None = Field(None, ge=1, le=1_000_000)
    # Hold out exactly the samples of a list instead, one name a line, as the `val200.txt` of `transfer
    # layout`.
    held_out_names: Annotated[Place | None, MAY_CHANGE] = None
    # Key of what is held out: change it to hold out other samples.
    split_seed: Seed = 0
    # Read the data in blocks of so many consecutive samples, for file systems that are slow at places far
    # apart; `window` blocks, which lie anywhere in the data, are mixed. Without it, every sample may come
    # from anywhere.
    block: int | None = Field(None, ge=1, le=1 << 31)
    window: int = Field(1024, ge=1, le=1_000_000)
    # File from `dedup drop`, one name a line: samples of `train` to leave out, of the held-out part too.
    drop: Annotated[Place | None, MAY_CHANGE] = None

    @model_validator(mode="after")
    def consistent(self) -> "Data":
        if self.stratified and not self.held_out:
            raise ValueError("'stratified' needs 'held_out', the share of each class")
        if self.held_out_per_class is not None and (self.held_out or self.stratified):
            raise ValueError("'held_out_per_class' stands instead of 'held_out' and 'stratified'")
        if self.held_out_names is not None and (self.held_out or self.held_out_per_class is not None):
            raise ValueError(
                "'held_out_names' stands instead of 'held_out', 'stratified' and 'held_out_per_class'"
            )
        return self

    @property
    def holds_out(self) -> bool:
        """Whether a part of `train` is held out."""
        return bool(self.held_out) or self.held_out_per_class is not None or self.held_out_names is not None


class Selection(Section):
    # Which samples of a packed set are used. Nothing is copied. The samples are chosen by a keyed hash of the
    # original picture file, so that they are the same in whatever shards they lie, on every machine.
    # How many: those with the smallest hashes, so a smaller selection lies within a larger one. Copies of a
    # picture come together. Of what is trained on only, not of what is held out.
    size: int | None = Field(None, ge=1, le=1 << 53)
    # The same as a share.
    share: float | None = Field(None, gt=0.0, le=1.0)
    # Key of the hash: another one is an independent draw.
    seed: Seed = 0
    # The samples that `size`, `share` and `names` leave out, instead.
    complement: bool = False
    # File of classes, one name, tag or wnid a line: the vocabulary is restricted to them.
    classes: Annotated[Place | None, MAY_CHANGE] = None
    # File of names of samples, one a line, as `dedup drop` writes them: only these.
    names: Annotated[Place | None, MAY_CHANGE] = None

    @model_validator(mode="after")
    def consistent(self) -> "Selection":
        if self.size is not None and self.share is not None:
            raise ValueError("'size' and 'share' both say how many: give one of them")
        if self.complement and self.size is None and self.share is None and self.names is None:
            raise ValueError("'complement' of everything is nothing; it needs 'size', 'share' or 'names'")
        return self


class Noise(Section):
    # Share of the labels that are replaced, each by another class drawn by frequency (Mahajan et al. 2018,
    # section 3.1.3).
    share: float = Field(0.0, ge=0.0, le=1.0)
    seed: Seed = 0
    # Where a sample has the drawn class already. merge: it then has a class less; resample: draw again.
    duplicates: Literal["merge", "resample"] = "merge"


class Sampling(Section):
    # How often classes are seen: as they come, by the square root of their frequency (Mahajan et al. 2018,
    # section 3.1.4), or all alike.
    name: Literal["natural", "sqrt", "uniform"] = "natural"
    # repeat: every sample at least once an epoch, and more often if it has a rare class. two-stage: draw a
    # class, then one of its samples.
    method: Literal["repeat", "two-stage"] = "repeat"
    # repeat only: classes that fewer than this share of the samples have are repeated; without it, all but
    # the most frequent one. A lower share makes an epoch shorter, and leaves frequent classes as they come.
    threshold: float | None = Field(None, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def consistent(self) -> "Sampling":
        if self.threshold is not None and (self.name == "natural" or self.method != "repeat"):
            raise ValueError(
                "'threshold' is about classes that are repeated: 'sqrt' or 'uniform' by 'repeat'"
            )
        return self
