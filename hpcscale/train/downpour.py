"""Asynchronous training, emulated: workers take turns, each with weights that others have changed meanwhile.

In: `[downpour]` of a recipe. Out: the weights of a step's forward and backward, and what its gradients do.
This is Downpour SGD, by which Sun et al. 2017 trained (section 4.1): a worker fetches weights, computes the
gradient of a batch, and pushes it to the server, whose weights are those of the network and the optimizer.
All ranks together are one worker after the other, so that a run is a pure function of its seed, however many
ranks it has.

Workers come in rounds, each once, in an order of its own: a gradient is n - 1 pushes late on average, at most
2 n - 2. Running averages of normalisations are those of the server. What workers hold is in the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from hpcscale.config import Training


class Workers:
    """Without `downpour.workers`, they change nothing."""

    def __init__(self, settings: Training, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """All workers begin with the weights of `model`. What they hold becomes state of `optimizer`."""
        self.settings, self.seed, self.optimizer = settings.downpour, settings.train.seed, optimizer
        self.parameters: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        self.worker, self.turns = 0, 0  # whose turn it is, and how many it has had
        self.states = [optimizer.state[parameter] for parameter in self.parameters]
        for parameter, state in zip(self.parameters, self.states, strict=True):
            for worker in range(self.settings.workers):
                state[f"worker{worker}"] = parameter.detach().clone()
                if self.settings.push > 1:
                    state[f"accrued{worker}"] = torch.zeros_like(parameter)

    @contextmanager
    def turn(self, step: int) -> Iterator[None]:
        """Within, the network has the weights of the worker whose turn comes after `step` steps."""
        if self.settings.workers:
            self.turns, place = divmod(step, self.settings.workers)
            order = np.random.default_rng([self.seed % 2**64, self.turns]).permutation(self.settings.workers)
            self.worker = int(order[place])
        server = [parameter.data for parameter in self.parameters]
        try:
            for parameter, copy in zip(self.parameters, self._held("worker"), strict=False):
                parameter.data = copy
            yield
        finally:
            for parameter, data in zip(self.parameters, server, strict=True):
                parameter.data = data

    @torch.no_grad()
    def push(self, bad: Tensor) -> Tensor:
        """Call before the optimizer: gradients become those that are pushed. Returns 1.0 if none are, or if
        `bad`, on their device, is.

        A worker that will not fetch applies its gradient to its own weights, by plain SGD.
        """
        if self.settings.push == 1 and self._due(self.settings.fetch):
            return bad
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        good = [torch.where(bad > 0, 0.0, gradient) for gradient in gradients]
        if not self._due(self.settings.fetch):
            lr = self.optimizer.param_groups[0]["lr"]
            torch._foreach_add_(self._held("worker"), good, alpha=-lr)
        if self.settings.push == 1:
            return bad
        accrued = self._held("accrued")
        torch._foreach_add_(accrued, good)
        if not self._due(self.settings.push):
            return torch.ones_like(bad)
        torch._foreach_copy_(gradients, accrued)
        torch._foreach_mul_(accrued, bad)
        return bad

    @torch.no_grad()
    def fetch(self) -> None:
        """Call after the optimizer: the worker gets the weights as they are now, if it is to."""
        if self.settings.workers and self._due(self.settings.fetch):
            torch._foreach_copy_(self._held("worker"), self.parameters)

    def _due(self, every: int) -> bool:
        return (self.turns + 1) % every == 0

    def _held(self, what: str) -> list[Tensor]:
        """Of the worker whose turn it is: one tensor a parameter; none without workers."""
        key = f"{what}{self.worker}"
        return [state[key] for state in self.states if key in state]
