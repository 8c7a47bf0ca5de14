"""What a checkpoint of a run holds, and how all ranks come to the same state; used by train.loop.

Network, optimizer, the report's window, and the fingerprint of what was trained on. The position in the data
is the number of steps, and nothing else: the order of samples is a pure function.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpcscale import config, ranks
from hpcscale.data import same
from hpcscale.files import Told
from hpcscale.models import checkpoint, slices
from hpcscale.train import average, optim, split

KEPT = ("window", "divergence", "scale")  # of a checkpoint's metadata: what the loop goes on with


class Diverged(Told):
    """Loss or weights are not finite any more; the message names the step, and its samples if known."""


def resume(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, contents: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Steps done, and what is KEPT as `save` was given it, if at all; weights and optimizer state are rank
    0's on all ranks (collective). `contents`: `same.fingerprint`. Raises ConfigError where a checkpoint was
    trained on others, and CheckpointError."""
    found = checkpoint.latest(run) if ranks.rank() == 0 else None
    step, kept = 0, {}
    if found is not None:
        same.refuse_others(found.metadata, contents, found.file)
        step, kept = found.step, {key: found.metadata.get(key) for key in KEPT}
    _distribute(found, model, optimizer)
    step, kept = ranks.broadcast_object([step, kept])
    return step, kept


def go_back(
    run: Path, before: int, every: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> int | None:
    """Weights and optimizer state of the newest checkpoint of fewer than `before` steps; returns how many, or
    None without one (collective).

    Prefers checkpoints of every `every` steps, which all runs make, to those of a run that was stopped.
    """
    found = None
    if ranks.rank() == 0:
        regular = checkpoint.whole(run, lambda step: step < before and step % every == 0)
        found = next(regular, None) or next(checkpoint.whole(run, lambda step: step < before), None)
    step: int | None = ranks.broadcast_object(found.step if found else None)
    if step is not None:
        _distribute(found, model, optimizer)
    return step


def _distribute(
    found: checkpoint.Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Rank 0's state, from the checkpoint if there is one, to all (collective)."""
    states = average.stored(model.state_dict(), optim.state(model, optimizer))
    divided = slices.divided(model)
    stored: tuple[dict[str, Tensor], ...] = ({}, {})
    if found is not None:
        stored = checkpoint.load(found)
        for into, values in zip(states, stored, strict=True):
            checkpoint.restore(split.shapes(into, divided), values, found.file)
    anew = ranks.broadcast_object(found is None)
    for state, values in zip(states, stored, strict=True):
        ranks.broadcast(tensor for name, tensor in state.items() if not split.rows_of(name, divided))
        if not anew:  # else all ranks have cut the same weights
            split.spread(state, values, divided)


def save(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    metadata: dict[str, Any],
    train: config.Train,
) -> None:
    """A checkpoint of rank 0's state (collective: no rank goes on, or ends, before it is there)."""
    divided = slices.divided(model)
    stored = average.stored(model.state_dict(), optim.state(model, optimizer))
    weights, others = (split.whole(state, divided) for state in stored)
    if ranks.rank() == 0:
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise Diverged(f"{run}: {name} is not finite after step {step}; nothing was saved")
        checkpoint.save(run, step, weights, others, metadata, train.keep, train.keep_at)
    ranks.barrier()
