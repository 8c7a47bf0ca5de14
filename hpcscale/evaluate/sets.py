"""The samples that a model is judged by: the validation data, the held-out part, or what it was trained on.

In: the configuration of a run. Out: `Subset`, for whatever task evaluates.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import Config, Which
from hpcscale.data.drop import order_of
from hpcscale.data.order import Order
from hpcscale.data.store import DataSet, open_data
from hpcscale.files import Told


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
    order: Order | None  # that they were chosen by; validation data is used whole


def open_set(
    settings: Config, which: Which, data: DataSet | None = None, order: Order | None = None
) -> Subset:
    """A set's samples: all of `data.validation`, the part of `data.train` that training never sees
    (held_out), or the rest of it (train). Rising ids, 8 bytes each.

    data, order: of `data.train`, where they are there already; with a drop list an order costs a pass over
    all names. Raises EvaluateError where the set is not configured or has no samples, DataError, ConfigError.
    """
    if which == "validation":
        if settings.data.validation is None:
            raise NoSet("set 'validation': data.validation is not configured; allowed: held_out, train")
        data, order = open_data(settings.data.validation), None
        samples = np.arange(data.samples, dtype=np.int64)
    else:
        data = data or open_data(settings.data.train)
        order = order or order_of(settings, data)
        if which == "train":
            samples = np.sort(order.samples_at(np.arange(order.length, dtype=np.int64))[0])
        else:
            samples = np.sort(order.held_out_samples())
    if not samples.size:
        raise NoSet(f"set '{which}' has no samples; data.held_out is {settings.data.held_out}")
    return Subset(which, data, samples, order)


def default_set(settings: Config) -> Which:
    """What a run is judged by: other data if there is some, else the held-out part, else train."""
    if settings.data.validation is not None:
        return "validation"
    return "held_out" if settings.data.held_out else "train"
