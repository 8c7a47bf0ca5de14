"""What a catalogue lists: which sets are there, how large they are, and whether their names say so.

In: a catalogue (hpcscale/catalogue.py). Out: a `Listed` an entry, for `hpcscale data list`. Plans, manifests,
vocabularies and class lists are read, but no shard, so that a set of billions costs a moment.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpcscale.catalogue import Catalogue, Entry
from hpcscale.choice import Selection
from hpcscale.data.manifest import read_manifest, read_plan
from hpcscale.files import FileError
from hpcscale.labels import restrict
from hpcscale.labels import vocabulary as vocabulary_file
from hpcscale.names import ALSO, IG_CLASSES, Name, fits, parse


class Listed(NamedTuple):
    """None where it is not known, or not said."""

    name: str
    data: str
    vocabulary: str | None
    there: bool  # whether `data` is a packed set
    samples: int | None  # of the packed set
    selection: str  # in words
    selected: int | None  # samples of the selection; None where a list of names or classes decides
    classes: int | None  # of the vocabulary, as restricted by the selection
    fits: (
        bool | None
    )  # whether the name's numbers stand for `selected` and `classes`, as far as both are known
    warnings: tuple[str, ...]


def listed(catalogue: Catalogue) -> Iterator[Listed]:
    """The entries, in the order of the catalogue."""
    for text, entry in catalogue.entries.items():
        warnings: list[str] = []
        samples = _samples(entry.data, warnings)
        selected = _selected(entry.selection, samples, warnings)
        classes = _classes(entry, warnings)
        good = _compared(parse(text), selected, classes, warnings)
        yield Listed(
            name=text,
            data=str(entry.data),
            vocabulary=None if entry.vocabulary is None else str(entry.vocabulary),
            there=samples is not None,
            samples=samples,
            selection=words(entry.selection),
            selected=selected,
            classes=classes,
            fits=good,
            warnings=tuple(warnings),
        )


def words(selection: Selection) -> str:
    """A selection as people say it."""
    text = "all"
    if selection.size is not None:
        text = f"{selection.size:,} samples"
    elif selection.share is not None:
        text = f"{100 * selection.share:.6g} % of the samples"
    if text != "all" and selection.seed:
        text += f" by seed {selection.seed}"
    if selection.names is not None:
        text += f" of the names in {selection.names}"
    if selection.complement:
        text = f"all but {text}"
    return text if selection.classes is None else f"{text}, with a class of {selection.classes}"


def _samples(folder: Path, warnings: list[str]) -> int | None:
    """Samples of a packed set; None and a warning where there is none that can be used."""
    try:
        plan, entries = read_plan(folder), read_manifest(folder)
    except FileError as error:
        warnings.append(str(error) if folder.exists() else f"{folder}: is not there")
        return None
    if len(entries) != plan.shards:
        warnings.append(f"{folder}: the ingest has not ended: {len(entries)} of {plan.shards} shards")
    return sum(entry.samples for entry in entries)


def _selected(selection: Selection, samples: int | None, warnings: list[str]) -> int | None:
    """How many samples a selection takes of so many."""
    size = selection.size
    if size is not None and samples is not None and size > samples:
        warnings.append(f"selection.size is {size:,}, but the set has {samples:,} samples")
        return None
    if selection.classes is not None or selection.names is not None:
        return None if size is None or selection.complement else size
    if samples is None:
        return None if selection.complement else size
    chosen = samples if selection.share is None else max(1, round(selection.share * samples))
    chosen = chosen if size is None else size
    return samples - chosen if selection.complement else chosen


def _classes(entry: Entry, warnings: list[str]) -> int | None:
    if entry.vocabulary is None:
        return None
    try:
        vocabulary = vocabulary_file.load(entry.vocabulary)
        if entry.selection.classes is None:
            return len(vocabulary.classes)
        return len(restrict.read_classes(entry.selection.classes, vocabulary))
    except FileError as error:
        warnings.append(str(error))
        return None


def _compared(name: Name, selected: int | None, classes: int | None, warnings: list[str]) -> bool | None:
    """Whether the numbers of a name stand for these counts; None where nothing can be compared."""
    found = []
    for number, count, what in ((name.images, selected, "samples"), (name.classes, classes, "classes")):
        if number is None or count is None:
            continue
        alias = what == "classes" and ALSO.get(name.source, name.source) == "IG" and number in IG_CLASSES
        found.append(any(fits(each, count) for each in (IG_CLASSES if alias else (number,))))
        if not found[-1]:
            warnings.append(f"the name says {number:,} {what}, it has {count:,}")
    return all(found) if found else None
