"""Weights of other runs and of files, by our names: what a network may start from.

In: a run folder, one of its checkpoints, or a file of tensors. Out: tensors on the CPU by the names that
networks here give them, which for a ResNet are torchvision's (published.py: those of BiT), and what the file
says of itself. Of a .pth file only tensors are read (torch.load with weights_only), so that nothing in it is
run.
"""

import hashlib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hpcscale.files import FileError, open_regular, parse_json
from hpcscale.models import checkpoint, published

# Keys below which training code of others keeps the weights, and what wrappers of torch put before names.
WITHIN = ("state_dict", "model_state_dict", "model")
BEFORE = ("module.", "_orig_mod.", "model.")
SAID = "hpcscale"  # the key of a file's metadata below which an export says what it is, as JSON


class WeightsError(checkpoint.CheckpointError):
    """Weights that cannot be used; the message names the file."""


class Weights(NamedTuple):
    file: Path  # that was read
    sha256: str  # of the file
    tensors: dict[str, Tensor]  # by our names, on the CPU
    # What the file says of itself: a checkpoint's metadata, or what an export states; else what is known of
    # published weights, or nothing.
    stated: Mapping[str, Any]


def read(place: Path) -> Weights:
    """The weights of a run's newest checkpoint, of RUN/checkpoints/step-*.safetensors, or of a file that ends
    as one of READERS. Raises CheckpointError."""
    if place.is_dir() or (checkpoint.NAME.fullmatch(place.name) and place.with_suffix(".json").exists()):
        found = checkpoint.find(place)
        return Weights(found.file, found.sha256, checkpoint.load(found)[0], found.metadata)
    reader = READERS.get(place.suffix)
    if reader is None:
        raise WeightsError(
            f"{place}: weights are read from a run folder, from its checkpoints, and from files that end in "
            f"{', '.join(READERS)}"
        )
    try:
        values, stated = reader(place)
        tensors = {name: value for name, value in _unwrapped(values).items() if isinstance(value, Tensor)}
        tensors, known = published.ours(tensors)
        sha256 = digest(place)
    except WeightsError:
        raise
    except published.PublishedError as error:
        raise WeightsError(f"{place}: {error}") from None
    except (OSError, FileError) as error:
        raise WeightsError(f"{place}: cannot be read: {error}") from None
    if not tensors:
        raise WeightsError(f"{place}: holds no tensors by name")
    return Weights(place, sha256, tensors, known | dict(stated))


def digest(file: Path) -> str:
    """SHA-256 of a regular file. Raises FileError and OSError."""
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _safetensors(file: Path) -> tuple[Any, Mapping[str, Any]]:
    open_regular(file).close()
    try:
        with safe_open(file, framework="pt") as stored:
            said = parse_json((stored.metadata() or {}).get(SAID, "{}"), file)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # not a dict
    except SafetensorError as error:
        raise WeightsError(f"{file}: not a whole safetensors file: {error}") from None
    return tensors, said if isinstance(said, dict) else {}


def _torch(file: Path) -> tuple[Any, Mapping[str, Any]]:
    with open_regular(file) as stream:
        try:
            return torch.load(stream, map_location="cpu", weights_only=True), {}
        except pickle.UnpicklingError as error:
            raise WeightsError(
                f"{file}: holds more than tensors, or is damaged, and nothing else is unpickled: save its "
                f"state_dict alone; torch says: {str(error).strip().partition(chr(10))[0]:.200}"
            ) from None
        except Exception as error:  # what damaged bytes make torch raise is not documented
            raise WeightsError(f"{file}: cannot be read: {type(error).__name__}: {error!s:.200}") from None


def _numpy(file: Path) -> tuple[Any, Mapping[str, Any]]:
    with open_regular(file) as stream:
        try:
            with np.load(stream, allow_pickle=False) as stored:
                return {name: torch.from_numpy(stored[name]) for name in stored.files}, {}
        except Exception as error:  # zipfile, zlib, NumPy and torch have their own errors
            raise WeightsError(f"{file}: cannot be read: {type(error).__name__}: {error!s:.200}") from None


READERS: dict[str, Callable[[Path], tuple[Any, Mapping[str, Any]]]] = {
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".npz": _numpy,
}


def _unwrapped(values: Any) -> dict[str, Any]:
    """The innermost mapping of names to weights, without what wrappers put before the names."""
    while isinstance(values, Mapping):
        inner = [values[key] for key in WITHIN if isinstance(values.get(key), Mapping)]
        if not inner:
            break
        values = inner[0]
    if not isinstance(values, Mapping):
        return {}
    # A copy of a checkpoint of ours, without its record.
    named = {str(name): value for name, value in values.items() if not str(name).startswith("optimizer.")}
    while named and (prefix := next((p for p in BEFORE if all(name.startswith(p) for name in named)), None)):
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    return named
