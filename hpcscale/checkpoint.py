"""Checkpoints: tensors in, two files out, and back; written by train.loop, read by train.loop and evaluate.

`RUN/checkpoints/step-%08d.safetensors` holds the tensors, named `model.<name>` and `optimizer.<name>`; the
JSON file beside it holds step, SHA-256 of the tensors' file and what the caller wants to remember. The JSON
is written last: a checkpoint exists when it does. Both are written aside, fsynced, renamed, and their folder
fsynced, so that a power cut leaves either the old or the new; the tensors are read back and compared before
they are renamed. Nothing is unpickled.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpcscale.files import FileError, sync

_log = logging.getLogger(__name__)


class CheckpointError(FileError):
    """A checkpoint that cannot be written or read; the message names the file."""


class Checkpoint(NamedTuple):
    step: int  # steps done
    file: Path  # the tensors
    metadata: dict[str, Any]
    sha256: str = ""  # of the tensors' file


def folder(run: Path) -> Path:
    return run / "checkpoints"


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    keep: int,
) -> Checkpoint:
    """Write the state after `step` steps, then remove all but the newest `keep` checkpoints.

    Checkpoints of later steps are removed too: they belong to a future that was abandoned (a corrupt file was
    passed over). Raises CheckpointError, with the older checkpoints untouched, when the disk is full or lies.
    """
    place = folder(run)
    file = place / f"step-{step:08d}.safetensors"
    # Contiguous copies of channels_last weights, on the CPU: safetensors stores no strides.
    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.items()}
    tensors |= {f"optimizer.{name}": tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}
    try:
        place.mkdir(parents=True, exist_ok=True)
        for leftover in place.glob("*.tmp"):
            leftover.unlink()
        aside = file.with_name(file.name + ".tmp")
        save_file(tensors, aside)
        sync(aside)
        _compare(aside, tensors)
        digest = _digest(aside)
        aside.rename(file)
        sync(place)
        record = {"step": step, "sha256": digest, "metadata": dict(metadata)}
        aside = file.with_name(file.stem + ".json.tmp")
        aside.write_text(json.dumps(record, indent=2) + "\n")
        file.chmod(aside.stat().st_mode)  # safetensors makes its files private; follow the umask instead
        sync(aside)
        aside.rename(file.with_suffix(".json"))
        sync(place)
        _prune(place, step, keep)
    except (OSError, SafetensorError) as error:
        for leftover in place.glob("*.tmp"):
            leftover.unlink(missing_ok=True)
        kept = ", ".join(sorted(path.stem for path in place.glob("step-*.json"))) or "none"
        raise CheckpointError(f"{file}: cannot be written: {error}; checkpoints that stay: {kept}") from error
    return Checkpoint(step, file, dict(metadata), digest)


def latest(run: Path, wanted: Callable[[int], bool] = lambda step: True) -> Checkpoint | None:
    """The newest checkpoint of a `wanted` step whose digest holds; None if there is none. A damaged one is
    named in the log and passed over.

    Reads the whole file once.
    """
    for record_file in sorted(folder(run).glob("step-*.json"), reverse=True):
        file = record_file.with_suffix(".safetensors")
        try:
            record = json.loads(record_file.read_text())
            step, digest, metadata = record["step"], record["sha256"], record["metadata"]
            if not wanted(step):
                continue
            found = _digest(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning(
                "%s: damaged checkpoint, passed over: %s: %s", record_file, type(error).__name__, error
            )
            continue
        if found != digest:
            _log.warning("%s: damaged checkpoint, passed over: sha256 is %s, not %s", file, found, digest)
            continue
        return Checkpoint(step, file, metadata, digest)
    return None


def find(place: Path) -> tuple[Path, Checkpoint]:
    """A run folder and its newest checkpoint, or of a checkpoint's file its run folder and itself. Raises
    CheckpointError."""
    if place.is_dir():
        found = latest(place)
        if found is None:
            raise CheckpointError(f"{place}: no checkpoint there; `hpcscale train` writes them")
        return place, found
    try:
        record = json.loads(place.with_suffix(".json").read_text())
        found = Checkpoint(
            record["step"], place.with_suffix(".safetensors"), record["metadata"], record["sha256"]
        )
        if (digest := _digest(found.file)) != found.sha256:
            raise ValueError(f"sha256 is {digest}, not {found.sha256}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{place}: not a checkpoint: {error}") from None
    return place.absolute().parent.parent, found


def load(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Model and optimizer tensors, on the CPU."""
    try:
        tensors = load_file(checkpoint.file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint.file}: cannot be read: {error}") from error
    model = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    optimizer = {
        name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")
    }
    return model, optimizer


def restore(into: Mapping[str, Tensor], values: Mapping[str, Tensor], file: Path) -> None:
    """Copy `values` into the tensors of the same names, in place; every name, shape and dtype must agree."""
    if into.keys() != values.keys():
        missing, extra = sorted(into.keys() - values.keys()), sorted(values.keys() - into.keys())
        raise CheckpointError(f"{file}: does not fit: missing {missing[:5]}, unknown {extra[:5]}")
    with torch.no_grad():
        for name, tensor in into.items():
            value = values[name]
            if value.shape != tensor.shape or value.dtype != tensor.dtype:
                raise CheckpointError(
                    f"{file}: {name} is {value.dtype} {tuple(value.shape)}, "
                    f"expected {tensor.dtype} {tuple(tensor.shape)}"
                )
            tensor.copy_(value)


def _compare(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read the file back, one tensor at a time; bits are compared, so that NaN equals itself."""
    with safe_open(file, framework="pt") as stored:
        for name, tensor in tensors.items():
            found = stored.get_tensor(name)
            if found.dtype != tensor.dtype or not torch.equal(_bits(found), _bits(tensor)):
                raise OSError(f"what was read back of {name} differs from what was written")


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _prune(place: Path, step: int, keep: int) -> None:
    """Remove surplus checkpoints, JSON first, and tensors that have no JSON."""
    records = sorted(place.glob("step-*.json"))
    current = f"step-{step:08d}.json"
    past = [record for record in records if record.name <= current]
    for record in records:
        if record not in past[-keep:]:
            record.unlink()
    for file in place.glob("step-*.safetensors"):
        if not file.with_suffix(".json").exists():
            file.unlink()
    sync(place)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
