"""Does a run read the same contents on all ranks, and those that its checkpoint was trained on?

In: configuration, data and vocabulary of a run. Out: digests of contents, whatever the paths. They are
kept in every checkpoint and compared when a run goes on or is evaluated.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hpcscale import ranks, sections
from hpcscale.config import ConfigError, Training
from hpcscale.data.store import DataSet
from hpcscale.labels.vocabulary import Vocabulary

# Where in a recipe the contents come from. dropped: what vocabulary, drop list and selection leave of the
# data, with its noise; the name is older than all of these but one.
PLACES = {
    "data": "data.train",
    "classes": "data.vocabulary",
    "dropped": "data.drop, data.held_out_names, selection, noise or data.unlabelled",
}

T = TypeVar("T", bound=Training)


def settings(mine: T | None, kind: type[T]) -> T:
    """Rank 0's configuration, of a task's kind, on all ranks (collective), because a file may change while
    ranks start."""
    values = ranks.broadcast_object(mine.model_dump(mode="json") if mine else None)
    return sections.check(kind, values, "configuration of rank 0")


def fingerprint(vocabulary: Vocabulary, data: DataSet, chosen: str | None) -> dict[str, Any]:
    """Digests of what must be the same (PLACES), and versions, for people (collective).

    chosen: the digest of what of `data` is trained on; None if `data` is not data.train. Raises ConfigError
    on a rank that reads other contents than rank 0, such as a stale copy on its node.
    """
    classes = json.dumps([vocabulary.classes, vocabulary.parents, sorted(vocabulary.tags.items())])
    found: dict[str, Any] = {
        "classes": hashlib.sha256(classes.encode()).hexdigest(),
        "names": names(vocabulary.classes),
        "versions": versions(),
    }
    if chosen is not None:
        found |= {"data": data.digest, "dropped": chosen}
    return agreed(found)


def agreed(found: dict[str, Any]) -> dict[str, Any]:
    """What a rank found, if all ranks found the same (collective). Raises ConfigError elsewhere."""
    if place := _differing(ranks.broadcast_object(found), found):
        raise ConfigError(f"{place}: rank {ranks.rank()} reads other contents there than rank 0")
    return found


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("hpcscale", "torch", "numpy")}


def names(classes: Sequence[str]) -> str:
    """Digest of the names of classes in their order: what the outputs of a network stand for."""
    return hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()


def refuse_others(stated: Mapping[str, Any], found: Mapping[str, Any], file: Path) -> None:
    """Raises ConfigError if the metadata of a checkpoint `file` state other contents than were found."""
    if place := _differing(stated, found):
        raise ConfigError(f"{place}: not the contents that {file} was trained on")


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The place of the first contents that both state and that differ; None if there is none."""
    both = [key for key in PLACES if key in one and key in other]
    return next((PLACES[key] for key in both if one[key] != other[key]), None)
