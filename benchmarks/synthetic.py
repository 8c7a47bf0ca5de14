"""A data set of billions of samples without its pictures: manifest, vocabulary, an index of a tenth of it.

Shards are empty files of the sizes that the manifest states, which take no room; whoever opened one would
fail. Which samples are selected, and their classes, are drawn by pure functions of the sample.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import shuffle
from hpcscale import config
from hpcscale.data.manifest import Entry, Plan, digest, manifest_lines, shard_name, tag_lines
from hpcscale.data.order import within, words
from hpcscale.data.store import open_data
from hpcscale.labels import vocabulary
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.samples import chosen, files, index
from hpcscale.samples.candidates import CHUNK, Candidates, Tally, name_lists

SHARD = 50_000  # samples
BYTES = (1_000_000_000, 4_000_000_000)  # of a shard of so many samples
SELECTED = 10  # one of so many samples
SECOND = 0.26  # of the samples have a second class, as JFT's
LABELS, PLACES, SIZES = 1, 2, 3  # streams of draws


class World(NamedTuple):
    samples: int
    classes: int

    @property
    def selected(self) -> int:
        return self.samples // SELECTED


class Draw:
    """The classes of any selected sample, by frequencies as 1 / rank (Zipf)."""

    def __init__(self, classes: int) -> None:
        # Twenty bits of a draw say which class; the rarest of 17,000 has five of a million places.
        self.table = np.repeat(np.arange(classes, dtype=np.int32), shuffle.zipf(1 << 20, classes))
        self.second = np.uint64(int(SECOND * (1 << 24)))

    def __call__(
        self, samples: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32]]:
        """Identities (n,), and classes in CSR form: rising, each once."""
        pictures, draw = words(LABELS, (samples.view(np.uint64),), 2).T
        first = self.table[(draw >> np.uint64(44)).astype(np.int64)]
        other = self.table[(draw >> np.uint64(24) & np.uint64(0xFFFFF)).astype(np.int64)]
        two = ((draw & np.uint64(0xFFFFFF)) < self.second) & (first != other)
        offsets = np.zeros(len(samples) + 1, np.int64)
        np.cumsum(1 + two, out=offsets[1:])
        classes = np.empty(offsets[-1], np.int32)
        classes[offsets[:-1]] = np.where(two, np.minimum(first, other), first)
        classes[offsets[1:][two] - 1] = np.maximum(first, other)[two]
        return pictures, offsets, classes


def candidates(world: World) -> Iterator[Candidates]:
    """Of each ten samples the one that the selection keeps."""
    draw = Draw(world.classes)
    for begin in range(0, world.selected, CHUNK):
        groups = np.arange(begin, min(begin + CHUNK, world.selected), dtype=np.int64)
        samples = groups * SELECTED + within(words(PLACES, (groups.view(np.uint64),), 1)[:, 0], SELECTED)
        none = np.zeros(len(samples), np.bool_)
        yield Candidates(samples, *draw(samples), none, ~none)


def make_set(folder: Path, world: World) -> None:
    """Write folder/data, folder/vocabulary.json and folder/recipe.toml."""
    data = folder / "data"
    data.mkdir(parents=True)
    tags = tuple(f"tag{number:06}" for number in range(world.classes))
    content = tag_lines(tags)
    plan = Plan(
        source="synthetic", records=world.samples, source_digest="0" * 32, tags=len(tags),
        tags_digest=digest(content).hex(), resize=340, quality=90, shard_samples=SHARD, encoder="none",
    )  # fmt: skip
    (data / "plan.json").write_text(plan.json_text())
    (data / "tags.jsonl").write_bytes(content)
    shards = np.arange(plan.shards, dtype=np.uint64)
    sizes = BYTES[0] + within(words(SIZES, (shards,), 1)[:, 0], BYTES[1] - BYTES[0])
    entries = []
    for number, size in enumerate(sizes.tolist()):
        samples = min(SHARD, world.samples - number * SHARD)
        digests = {"digest": f"{number:032x}", "pictures": f"{number:032x}"}
        entry = Entry(file=shard_name(number), samples=samples, tags=samples, untagged=0, quarantined=0,
                      bytes=size, sha256="0" * 64, **digests)  # fmt: skip
        entries.append(entry)
        with open(data / entry.file, "wb") as file:
            file.truncate(size)
    (data / "manifest.jsonl").write_bytes(manifest_lines(entries))
    (data / "quarantine.jsonl").touch()
    nothing: tuple[tuple[()], ...] = ((),) * world.classes
    about = Vocabulary(tags, nothing, nothing, {tag: c for c, tag in enumerate(tags)}, (1,) * world.classes,
                       world.samples, world.samples, {})  # fmt: skip
    vocabulary.save(about, folder / "vocabulary.json")
    (folder / "recipe.toml").write_text(
        f"""
[data]
train = {json.dumps(str(data))}
vocabulary = {json.dumps(str(folder / "vocabulary.json"))}
unlabelled = "keep"
[input]
crop = 299
[schedule]
lr = 0.1
[train]
steps = 1_000_000
batch = 8064
"""
    )


def make_index(settings: config.Config, world: World, file: Path) -> int:
    """Write the index of a recipe that selects a tenth, as `data index` would from the shards; how often the
    samples were walked."""
    data, labels = open_data(settings.data.train), chosen.open_vocabulary(settings)
    about = chosen.describe(settings, data, labels, name_lists(settings))
    # The tenth is drawn by `candidates`: a selection of these would be one of a hundredth.
    drawn = settings.model_copy(update={"selection": config.Selection()})
    walks = 0

    def tables() -> Iterator[Candidates]:
        nonlocal walks
        walks += 1
        return candidates(world)

    with files.written(file, "index", about) as (make, stated):
        index.build(drawn, tables, world.classes, make, index.id_type(world.samples))
        stated |= {"tally": Tally(world.samples)._asdict(), "whole": False}
    return walks
