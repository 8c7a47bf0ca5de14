"""What to do if a loss is not a number, or a spike: skip the step, go back, stop. Used by train.loop.

All ranks decide alike, because they decide by sums over all ranks. The device decides whether a step is bad,
and nothing waits for it. The host learns it with the loss, on a GPU one step late. The host acts on a step
only after the next one, and the history is part of every checkpoint: so a run that was stopped in between
decides like one that was not.
"""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale import config, ranks
from hpcscale.train import state
from hpcscale.train.log import Report
from hpcscale.train.readback import Step
from hpcscale.train.state import Diverged

NamesOf = Callable[[NDArray[np.int64]], list[str]]
LARGEST = torch.finfo(torch.float32).max


class Guard:
    """The part on the device: judges a step, and undoes what a bad one did to the running averages."""

    def __init__(self, model: nn.Module) -> None:
        """Moves the buffers of `model` into one piece of memory per dtype, where copies are cheap."""
        self.buffers = [_flatten(model, dtype) for dtype in (torch.float32, torch.int64)]
        self.saved = [torch.empty_like(flat) for flat in self.buffers]

    def remember(self) -> None:
        """Call before a step: keeps a copy of the running averages."""
        for saved, flat in zip(self.saved, self.buffers, strict=True):
            saved.copy_(flat)

    def judge(self, loss: Tensor, limit: float, buckets: list[Tensor]) -> Tensor:
        """1.0 if the loss is above `limit`, or if any sum over ranks in `buckets` is not finite; else 0.0.
        Costs one pass over the gradients."""
        total = torch.stack([bucket.sum() for bucket in buckets]).sum()
        bad = ~(torch.isfinite(total) & (loss <= limit))
        return bad.to(torch.float32)

    def restore(self, bad: Tensor) -> None:
        """Call after a step: if it was bad, puts the running averages back."""
        for saved, flat in zip(self.saved, self.buffers, strict=True):
            flat.copy_(torch.where(bad > 0, saved, flat))


def _flatten(model: nn.Module, dtype: torch.dtype) -> Tensor:
    places = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.dtype == dtype
    ]
    if not places:
        return torch.empty(0, device=next(model.parameters()).device)
    flat = torch.cat([buffer.reshape(-1) for _, _, buffer in places])
    start = 0
    for module, name, buffer in places:
        setattr(module, name, flat[start : start + buffer.numel()].view(buffer.shape))
        start += buffer.numel()
    return flat


class History:
    """The part on the host: counts bad steps and says when to go back. Pure; a part of every checkpoint.

    Steps are numbered from 1. Decisions use losses only up to the last step but one, as on a GPU.
    """

    def __init__(self, settings: config.Divergence, state: dict[str, Any] | None = None) -> None:
        self.settings = settings
        state = state or {}
        self.losses: list[list[float]] = state.get("losses", [])  # number and loss of good steps
        self.skipped: list[int] = state.get("skipped", [])  # bad steps since the last return, in the window
        self.since: int = state.get("since", 0)  # step of the last return
        self.rollbacks: int = state.get("rollbacks", 0)
        self.due: int | None = state.get("due")  # after this step the weights go back

    def state(self) -> dict[str, Any]:
        """What JSON can carry, for another History."""
        names = ("losses", "skipped", "since", "rollbacks", "due")
        return {name: getattr(self, name) for name in names}

    def limit(self, step: int) -> float:
        """The largest loss that is not a spike at this step."""
        window = self.settings.window
        known = [loss for number, loss in self.losses if number <= step - 2][-window:]
        if not self.settings.spike or len(known) < window:
            return LARGEST
        return min(LARGEST, self.settings.spike * statistics.median(known))

    def good(self, step: int, loss: float) -> None:
        if self.settings.spike:
            self.losses = [*self.losses[-self.settings.window - 1 :], [step, loss]]

    def bad(self, step: int) -> None:
        """Count a skipped step. Raises Diverged if there were too many, and too many returns before."""
        if step <= self.since or self.due is not None:  # the weights went, or will go, back past it
            return
        window, skips = self.settings.window, self.settings.skips
        self.skipped = [*(number for number in self.skipped if number > step - window), step]
        if len(self.skipped) <= skips:
            return
        if self.rollbacks >= self.settings.rollbacks:
            raise Diverged(
                f"{len(self.skipped)} bad steps within {window}, and {self.rollbacks} returns before"
            )
        self.due = step + 1

    def returned(self, step: int) -> None:
        """The weights went back after this step."""
        self.skipped, self.since, self.due = [], step, None
        self.rollbacks += 1

    def reason(self, step: int, loss: float) -> str:
        """Why a step was bad."""
        if not math.isfinite(loss):
            return f"the loss of step {step} is {loss}"
        if loss > self.limit(step):
            median = self.limit(step) / self.settings.spike
            return f"the loss of step {step} is {loss:.6g}, where the median was {median:.6g}"
        return f"the gradients of step {step} are not finite"


def check(done: Step, names_of: NamesOf, history: History, report: Report) -> bool:
    """Count a step; whether any rank was asked to stop. Raises Diverged, on all ranks, with the names of the
    step's samples."""
    if not done.bad or done.overflow:
        if done.overflow:
            report.overflow(done.number)
        history.good(done.number, done.loss)
        report.step(done.number, done.loss)
        return done.stops > 0
    samples = ranks.gather(done.samples)  # collective: all ranks are here, for all have read the same numbers
    reason = history.reason(done.number, done.loss)
    report.skip(done.number, reason, samples)
    try:
        history.bad(done.number)
    except Diverged as error:
        report.end(done.number, "diverged")
        names = ", ".join(f"{i} ({name})" for i, name in zip(samples, names_of(samples), strict=True))
        raise Diverged(f"{reason}; its samples: {names}; {error}") from None
    return done.stops > 0


def go_back(
    run: Path,
    step: int,
    every: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    report: Report,
) -> None:
    """Go back to the weights from before the bad steps; training goes on with the next samples
    (collective)."""
    first = history.skipped[0]
    to = state.go_back(run, first, every, model, optimizer)
    if to is None:
        report.end(step, "diverged")
        raise Diverged(
            f"{run}: no checkpoint from before step {first}, the first that was bad, to go back to"
        )
    history.returned(step)
    report.rollback(step, to)
