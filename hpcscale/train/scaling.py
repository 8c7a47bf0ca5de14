"""The scale of losses in float16, in which small gradients would be zero (Micikevicius et al. 2018, 3.2).

Backward starts at scale * loss; gradients are divided by the scale once they are summed over ranks, so that
all ranks see the same infinities and skip the same steps. As torch.amp.GradScaler has it, the scale is halved
where gradients overflow, in a step that is then skipped, and doubled after INTERVAL steps without. All of it
stays on the device: nothing waits for it.
"""

import torch
from torch import Tensor

from hpcscale.train.gradients import GradientBuckets

START, INTERVAL = 2.0**16, 2000
LEAST, MOST = 1.0, 2.0**24  # below LEAST, it is not the scale that makes gradients infinite


class LossScale:
    """1, and never another, unless the precision is float16."""

    def __init__(self, precision: str, device: torch.device, state: list[float] | None = None) -> None:
        """state: of another LossScale."""
        self.used = precision == "float16"
        scale, steps = state or ((START, 0.0) if self.used else (1.0, 0.0))
        self.scale = torch.tensor(scale, device=device)
        self.steps = torch.tensor(steps, device=device)  # since it last changed

    def state(self) -> list[float]:
        """What JSON can carry (a sync on a GPU)."""
        return [self.scale.item(), self.steps.item()]

    def reset(self) -> None:
        """The weights went back: what made gradients infinite is no more."""
        if self.used:
            self.scale.fill_(START)
            self.steps.zero_()

    def up(self, loss: Tensor) -> Tensor:
        """What backward starts from."""
        return loss * self.scale if self.used else loss

    def down(self, gradients: GradientBuckets) -> None:
        """Call when they are summed: makes them those of the loss."""
        if self.used:
            gradients.multiply(1.0 / self.scale)

    def update(self, bad: Tensor, sane: Tensor) -> Tensor:
        """After a step that is skipped if `bad` is 1.0, whose loss itself is `sane` (bool): 1.0 if the scale
        is to blame, and is now halved; else 0.0, and the step is what it is."""
        if not self.used:
            return torch.zeros_like(bad)
        overflow = (bad > 0) & sane & (self.scale > LEAST)
        self.steps.add_(1.0).mul_(bad == 0)
        grows = self.steps == INTERVAL
        factor = torch.where(grows, 2.0, torch.where(overflow, 0.5, 1.0))
        self.scale.mul_(factor).clamp_(LEAST, MOST)
        self.steps.mul_(~grows)
        return overflow.to(bad.dtype)
