"""What a run trains on, is judged by, and is told that pictures show.

In: the configuration of a run, its data set and vocabulary. Out: `Chosen`. A small data set is walked when
the run starts; of a large one, an index file says the same (make.py writes it).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcscale.config import Config, ConfigError, Selection
from hpcscale.data.manifest import DataError
from hpcscale.data.order import Order, Whole
from hpcscale.data.store import DataSet
from hpcscale.labels import restrict
from hpcscale.labels import vocabulary as vocabulary_file
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.progress import Progress, none
from hpcscale.samples import sampling
from hpcscale.samples.candidates import NameLists, Tally, Walk, by_class, name_lists, whole_of
from hpcscale.samples.files import read_index
from hpcscale.samples.index import Index, build, id_type
from hpcscale.samples.lists import Held, Ids, Lists
from hpcscale.samples.noise import Noise
from hpcscale.samples.orders import Listed, Part, Range

MOST = 10_000_000  # samples of a data set that is walked when a run starts; each costs some 50 bytes then
NOTHING = hashlib.sha256(b"").hexdigest()  # says that nothing is left out, as it always did


@dataclass(frozen=True)
class Chosen:
    order: Order  # of what is trained on
    samples: Ids  # trained on, in any order
    held_out: Ids  # in any order
    noise: Noise | None
    index: Index | None  # None: a large set of which nothing is left out
    digest: str  # what must not change when a run goes on

    def counts(self) -> dict[str, int]:
        """What became of the samples of the data set; not all of it is known without an index."""
        told = self.index.tally._asdict() if self.index else {}
        return told | {"trained_on": self.samples.length, "held_out": self.held_out.length}


def open_vocabulary(settings: Config) -> Vocabulary:
    """The vocabulary of a run: that of `data.vocabulary`, restricted to `selection.classes`. Raises
    VocabularyError."""
    vocabulary = vocabulary_file.load(settings.data.vocabulary)
    if (file := settings.selection.classes) is None:
        return vocabulary
    return restrict.restricted(vocabulary, restrict.read_classes(file, vocabulary))


def choose(settings: Config, data: DataSet, vocabulary: Vocabulary, progress: Progress = none) -> Chosen:
    """What `settings` choose of `data`, which is `data.train`; `vocabulary` is that of `open_vocabulary`.

    Raises DataError where a list or the index file cannot be used or does not fit, ConfigError where nothing
    is left to train on, or where a large data set needs an index file and has none.
    """
    whole, lists = whole_of(settings, data), name_lists(settings)
    about = describe(settings, data, vocabulary, lists)
    index = None
    if settings.data.index is not None:
        index = _opened(settings.data.index, about, data.samples)
    elif data.samples <= MOST:
        index = in_memory(settings, data, vocabulary, lists, progress)
    elif not _by_itself(settings):
        raise ConfigError(
            f"data.index: missing. {data.folder} holds {data.samples} samples, more than {MOST}, and the "
            "recipe leaves some out, or does not take them as they come; run `hpcscale data index RECIPE "
            'INDEX` once, and set data.index, or data.unlabelled = "keep" if that is all'
        )
    everything = index is None or index.whole
    samples: Ids = Part(whole, 0, whole.length) if index is None else index.samples
    held_out: Ids = index.held_out if index else Part(whole, whole.length, whole.held_out_length)
    if index is not None:
        _refuse_nothing(settings, data, index)
    order = _order(settings, whole, index)
    noise = Noise(settings.noise, index.clean) if index and settings.noise.share else None
    digest = hashlib.sha256(about.encode()).hexdigest()
    if everything and noise is None and settings.sampling.name == "natural":
        digest = NOTHING
    return Chosen(order, samples, held_out, noise, index, digest)


def describe(settings: Config, data: DataSet, vocabulary: Vocabulary, lists: NameLists) -> str:
    """All that an index depends on, by contents, as JSON: equal texts, equal indexes."""
    classes = json.dumps([vocabulary.classes, sorted(vocabulary.tags.items())])
    chosen = settings.selection
    about: dict[str, Any] = {
        "data": data.digest,
        "vocabulary": hashlib.sha256(classes.encode()).hexdigest(),
        "unlabelled": settings.data.unlabelled,
        "drop": lists.drop and lists.drop.digest,
        "selection": chosen.model_dump(include={"size", "share", "seed", "complement"}),
        "names": lists.names and lists.names.digest,
        "held_out": [settings.data.held_out, settings.data.stratified, settings.data.held_out_per_class]
        + ([lists.held_out.digest] if lists.held_out else []),  # else as before there were such lists
        "split_seed": settings.data.split_seed,
        "noise": settings.noise.model_dump() if settings.noise.share else None,
    }
    return json.dumps(about, sort_keys=True)


def in_memory(
    settings: Config, data: DataSet, vocabulary: Vocabulary, lists: NameLists, progress: Progress = none
) -> Index:
    """Walk the data set. Raises DataError and ConfigError."""
    walk = Walk(settings, data, vocabulary, lists)
    tables = list(walk(range(len(data.entries)), progress))
    lists.refuse_unknown(data)

    def make(layout: dict[str, tuple[int, str]]) -> dict[str, Any]:
        return {name: np.empty(size, dtype) for name, (size, dtype) in layout.items()}

    found = build(settings, lambda: tables, len(vocabulary.classes), make, id_type(data.samples))
    return Index(
        Held(found["samples"]),
        Held(found["held_out"]),
        Lists(found["class_starts"], Held(found["by_class"])),
        Lists(found["once_starts"], Held(found["once"])),
        found["clean"],
        walk.tally,
        is_whole(settings, sum(len(rows.samples) for rows in tables), walk.tally),
    )


def is_whole(settings: Config, candidates: int, tally: Tally) -> bool:
    """Whether nothing is left out but, maybe, a share of all samples that is held out."""
    return (
        candidates == tally.samples
        and settings.selection == Selection(classes=settings.selection.classes)
        and not by_class(settings)
        and settings.data.held_out_names is None
    )


def _opened(file: Path, about: str, samples: int) -> Index:
    index, made_of = read_index(file, samples)
    if made_of != about:
        mine, others = json.loads(about), json.loads(made_of)
        keys = [key for key in mine if others.get(key) != mine[key]]
        raise DataError(
            f"{file}: was made of other contents or settings than the recipe has now: {', '.join(keys)}; "
            "make it again with `hpcscale data index`"
        )
    return index


def _by_itself(settings: Config) -> bool:
    """Whether no sample has to be looked at."""
    everything = settings.data.unlabelled == "keep" and settings.data.drop is None
    listed = settings.data.held_out_names is not None
    selected = settings.selection == Selection(classes=settings.selection.classes)
    natural = settings.sampling.name == "natural" and not settings.noise.share
    in_place = settings.data.block is None or not settings.data.held_out
    return everything and selected and natural and in_place and not (listed or by_class(settings))


def _refuse_nothing(settings: Config, data: DataSet, index: Index) -> None:
    """Raises DataError if nothing is left to train on, or to hold out though something should be."""
    if not index.samples.length:
        missing = "to train on"
    elif settings.data.holds_out and not index.held_out.length:
        missing = "that is held out"
    else:
        return
    why = [f"{index.tally.unlabelled} have no class in {settings.data.vocabulary}"]
    if settings.data.drop:
        why.append(f"{settings.data.drop} drops {index.tally.dropped}")
    if settings.data.held_out_names:
        why.append(f"data.held_out_names, {settings.data.held_out_names}, holds out {index.held_out.length}")
    if settings.selection != Selection():
        why.append("[selection] chooses among the others")
    raise DataError(
        f"{data.folder}: no sample is left {missing}; of the {index.tally.samples} there are, "
        + ", ".join(why)
    )


def _order(settings: Config, whole: Whole, index: Index | None) -> Order:
    seed, block, window = settings.train.seed, settings.data.block, settings.data.window
    if settings.sampling.name != "natural":
        assert index is not None  # or there would be no order by itself
        return sampling.order_of(settings.sampling, index.by_class, index.once, index.samples.length, seed)
    if block is None and (index is None or index.whole):
        return whole
    if index is None or (index.whole and not whole.held_out_length):
        return Listed(Range(whole.length), seed, block, window)
    return Listed(index.samples, seed, block, window)
