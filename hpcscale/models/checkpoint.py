"""Checkpoints: tensors in, two files out, and back; written by train.loop, read by train.loop and evaluate.

`RUN/checkpoints/step-%08d.safetensors` holds the tensors, named `model.<name>` and `optimizer.<name>`; the
JSON file beside it, the record, holds step, SHA-256 of the tensors' file, what the caller wants to remember,
and a digest of all this. The record is written last: a checkpoint exists when it does. Both are written
aside, fsynced, renamed, and their folder fsynced, so that a power cut leaves either the old or the new; the
tensors are read back and compared before they are renamed. Nothing is unpickled.

Only files named `step-` and eight digits, and their temporary files, are ours. Other files in the folder are
never read or removed.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpcscale.files import open_regular, read_json, replacing, sync
from hpcscale.models.places import NAME as NAME
from hpcscale.models.places import CheckpointError as CheckpointError
from hpcscale.models.places import folder as folder
from hpcscale.models.places import run_of as run_of

_log = logging.getLogger(__name__)


class NoCheckpoint(CheckpointError):
    """None was ever written there."""


class Checkpoint(NamedTuple):
    step: int  # steps done
    file: Path  # the tensors
    metadata: dict[str, Any]
    sha256: str = ""  # of the tensors' file


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    keep: int,
    keep_at: Container[int] = (),
) -> Checkpoint:
    """Write the state after `step` steps, then remove all but the newest `keep` checkpoints and those of the
    steps `keep_at`.

    Other checkpoints of later steps are removed too: the run went back to before them. If the disk is full or
    does not keep what is written, raises CheckpointError and leaves older checkpoints untouched.
    """
    place = folder(run)
    file = place / f"step-{step:08d}.safetensors"
    # Contiguous copies of channels_last weights, on the CPU: safetensors stores no strides.
    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.items()}
    tensors |= {f"optimizer.{name}": tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}
    try:
        place.mkdir(parents=True, exist_ok=True)
        _remove(_ours(place, ".tmp"))
        with replacing(file) as aside:
            save_file(tensors, aside)
            sync(aside)
            _compare(aside, tensors)
            digest = _digest(aside)
        record = {"step": step, "sha256": digest, "metadata": dict(metadata)}
        record["digest"] = _record_digest(record)
        with replacing(file.with_suffix(".json")) as aside:
            aside.write_text(json.dumps(record, indent=2) + "\n")
            file.chmod(aside.stat().st_mode)  # safetensors makes its files private; follow the umask instead
        _prune(place, step, keep, keep_at)
    except (OSError, SafetensorError) as error:
        _remove(_ours(place, ".tmp"))
        kept = ", ".join(path.stem for path in _ours(place, ".json")) or "none"
        raise CheckpointError(f"{file}: cannot be written: {error}; checkpoints that stay: {kept}") from error
    return Checkpoint(step, file, dict(metadata), digest)


def latest(run: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; None if none was ever written. Damaged ones are logged and skipped.

    Reads the whole file once. Raises CheckpointError if all checkpoints are damaged: to begin anew would
    overwrite what may still be rescued.
    """
    place, found, before = folder(run), None, None
    while found is None and (records := _ours(place, ".json")) != before:  # a training may just write one
        before, found = records, next(whole(run), None)
    tensors = _ours(place, ".safetensors")
    # A first save that was killed leaves tensors without a record.
    if found is None and (records or len(tensors) > 1):
        names = ", ".join(file.name for file in records or tensors)
        raise CheckpointError(
            f"{place}: none of the checkpoints there is whole ({names}), for the reasons above. Bring them "
            "back from a copy, or move the folder away to begin at step 0"
        )
    return found


def exist(run: Path) -> bool:
    """Whether any checkpoint was written, whole or not."""
    return bool(_ours(folder(run), ".json"))


def stated(run: Path) -> dict[str, Any] | None:
    """The metadata of the newest record that can be read; None if there is none. No tensors are read."""
    for file in reversed(_ours(folder(run), ".json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            return dict(read_json(file)["metadata"])
    return None


def whole(run: Path, wanted: Callable[[int], bool] = lambda step: True) -> Iterator[Checkpoint]:
    """The undamaged checkpoints of `wanted` steps, newest first; damaged ones are logged, with the reason.
    Reads each file once, when its turn comes."""
    for file in reversed(_ours(folder(run), ".json")):
        if not wanted(_step(file)):
            continue
        try:
            yield _checked(file)
        except CheckpointError as error:
            _log.warning("%s; passed over", error)


def find(place: Path) -> Checkpoint:
    """The newest checkpoint of a run folder, or the one of a checkpoint's file. Raises CheckpointError."""
    if run_of(place) != place:
        return _checked(place.with_suffix(".json"))
    found = latest(place)
    if found is None:
        raise NoCheckpoint(f"{place}: no checkpoint there; `hpcscale train` writes them")
    return found


def _checked(file: Path) -> Checkpoint:
    """The checkpoint of a record, if record and tensors are what was written. Raises CheckpointError."""
    try:
        record = read_json(file)
        if not isinstance(record, dict) or not record.keys() >= {"step", "sha256", "metadata", "digest"}:
            raise ValueError("not a record with step, sha256, metadata and digest")
        if record.pop("digest") != _record_digest(record):
            raise ValueError("what it says is not what was written: its digest differs")
        if record["step"] != _step(file):
            raise ValueError(f"is of step {record['step']}, which is not its name")
        tensors = file.with_suffix(".safetensors")
        if (digest := _digest(tensors)) != record["sha256"]:
            raise ValueError(f"sha256 of {tensors} is {digest}, not {record['sha256']}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged checkpoint: {error}") from None
    return Checkpoint(record["step"], tensors, record["metadata"], record["sha256"])


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


def _prune(place: Path, step: int, keep: int, keep_at: Container[int]) -> None:
    """Remove surplus checkpoints, records first, and tensors that have no record."""
    records = [record for record in _ours(place, ".json") if _step(record) not in keep_at]
    past = [record for record in records if _step(record) <= step]
    _remove(record for record in records if record not in past[-keep:])
    _remove(file for file in _ours(place, ".safetensors") if not file.with_suffix(".json").exists())
    sync(place)


def _ours(place: Path, suffix: str) -> list[Path]:
    """The files of checkpoints with this ending, by rising step."""
    try:
        names = sorted(file.name for file in place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [place / name for name in names if name.endswith(suffix) and NAME.fullmatch(name)]


def _step(file: Path) -> int:
    return int(file.name[5:13])


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _record_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its digest."""
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(file: Path) -> str:
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
