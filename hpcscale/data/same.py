"""Is what a run reads the same: on all ranks, and as what a checkpoint was trained on, wherever it lies?

In: configuration, data, vocabulary and order of a run. Out: digests, kept in every checkpoint, and compared
when a run goes on or is evaluated.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcscale import ranks, sections
from hpcscale.config import Config, ConfigError
from hpcscale.data.order import Order
from hpcscale.data.store import DataSet
from hpcscale.labels.vocabulary import Vocabulary

PLACES = {"data": "data.train", "classes": "data.vocabulary", "dropped": "data.drop"}  # keys of a recipe


def settings(mine: Config | None) -> Config:
    """Rank 0's configuration, on all ranks (collective): a file may change while they start."""
    values = ranks.broadcast_object(mine.model_dump(mode="json") if mine else None)
    return sections.check(Config, values, "configuration of rank 0")


def fingerprint(vocabulary: Vocabulary, data: DataSet, order: Order | None) -> dict[str, Any]:
    """What must be the same (PLACES), and versions, for people (collective).

    order: over `data`; None where these are not data.train, which then goes without. Raises ConfigError on a
    rank that reads other contents than rank 0: a stale copy on its node, say.
    """
    classes = json.dumps([vocabulary.classes, vocabulary.parents, sorted(vocabulary.tags.items())])
    found: dict[str, Any] = {
        "classes": hashlib.sha256(classes.encode()).hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in ("hpcscale", "torch", "numpy")},
    }
    if order is not None:
        found["data"] = data.digest
        found["dropped"] = hashlib.sha256(order.dropped.tobytes()).hexdigest()
    if place := _differing(ranks.broadcast_object(found), found):
        raise ConfigError(f"{place}: rank {ranks.rank()} reads other contents there than rank 0")
    return found


def refuse_others(stated: Mapping[str, Any], found: Mapping[str, Any], file: Path) -> None:
    """Raises ConfigError where the metadata of a checkpoint's file state other contents than were found."""
    if place := _differing(stated, found):
        raise ConfigError(f"{place}: not the contents that {file} was trained on")


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The place of the first contents that both state, and not alike."""
    both = [key for key in PLACES if key in one and key in other]
    return next((PLACES[key] for key in both if one[key] != other[key]), None)
