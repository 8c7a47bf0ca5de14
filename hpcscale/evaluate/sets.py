"""The samples that a model is judged by: the validation data, the held-out part, or what it was trained on.

In: the configuration of a run. Out: `Subset`, for whatever task evaluates.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import Config, Selection, Which
from hpcscale.data.store import DataSet, open_data
from hpcscale.files import Told
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.samples.chosen import Chosen, choose
from hpcscale.samples.selection import Selected

MOST = 50_000_000  # samples that can be evaluated; the results of each take about 1 KB over all ranks


class EvaluateError(Told):
    """A run or set that cannot be evaluated; the message says why."""


class NoSet(EvaluateError):
    """Nothing to evaluate: no such set, or no checkpoint."""

    code = 2


class Subset(NamedTuple):
    """The samples that are evaluated, and the data that they are a part of."""

    which: Which
    data: DataSet
    samples: NDArray[np.int64]  # rising ids
    chosen: Chosen | None  # that they were chosen by; None: of validation data


def open_set(
    settings: Config,
    which: Which,
    vocabulary: Vocabulary,
    data: DataSet | None = None,
    chosen: Chosen | None = None,
) -> Subset:
    """A set's samples: those of `data.validation` that [validation] selects, the part of `data.train` that is
    held out (held_out), or what training sees (train). Rising ids, 8 bytes each.

    data, chosen: of `data.train`, where they are there already; to choose may cost a pass over its tags.
    Raises EvaluateError where the set is not configured, has no samples or too many, DataError, ConfigError.
    """
    if which == "validation":
        if settings.data.validation is None:
            raise NoSet("set 'validation': data.validation is not configured; allowed: held_out, train")
        data, chosen = open_data(settings.data.validation), None
        samples = np.arange(data.samples, dtype=np.int64)
        if settings.validation != Selection():
            selected = Selected(data, settings.validation)
            samples = np.concatenate([rows.samples for rows in selected.chunks()])
    else:
        data = data or open_data(settings.data.train)
        chosen = chosen or choose(settings, data, vocabulary)
        ids = chosen.samples if which == "train" else chosen.held_out
        if ids.length > MOST:
            raise EvaluateError(
                f"set '{which}' has {ids.length} samples, more than the {MOST} whose results fit in memory; "
                "hold some out, and evaluate on them"
            )
        samples = np.sort(ids.take(np.arange(ids.length, dtype=np.int64)))
    if not samples.size:
        raise NoSet(f"set '{which}' has no samples; data.held_out is {settings.data.held_out}")
    return Subset(which, data, samples, chosen)


def default_set(settings: Config) -> Which:
    """What a run is judged by: other data if there is some, else the held-out part, else train."""
    if settings.data.validation is not None:
        return "validation"
    return "held_out" if settings.data.holds_out else "train"
