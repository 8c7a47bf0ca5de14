"""Optimizers: a network and its configuration in, a torch optimizer out; stepped by train.loop.

All state exists from the start, so that ranks and checkpoints agree on its names before the first step.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hpcscale import config
from hpcscale.models.surgery import HEAD


def build(model: nn.Module, settings: config.Optimizer) -> torch.optim.Optimizer:
    """SGD or RMSProp over two groups of parameters: with weight decay, and without.

    Biases and normalisations are not decayed (Goyal et al. 2017, section 5.3): all parameters of one
    dimension. Those that require no gradient are left out. The learning rate is set before every step by the
    caller.

    With `decay_to` "initial" (L2-SP, Li et al. 2018), the gradient of decay is weight_decay * (w - w0), where
    w0 are the weights of `model` now, kept as state `initial`; the loss has weight_decay / 2 |w - w0|^2 then.
    The classifier is not decayed, since its weights are new.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    anchored = settings.decay_to == "initial" and settings.weight_decay > 0.0
    decayed = [p for name, p in trained if p.ndim > 1 and not (anchored and name in HEAD)]
    known, parameters = set(decayed), [p for _, p in trained]
    groups = [
        {"params": decayed, "weight_decay": 0.0 if anchored else settings.weight_decay},
        {"params": [p for p in parameters if p not in known], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = RMSProp(groups, settings) if settings.name == "rmsprop" else _sgd(groups, settings)
    if anchored:
        _anchor(optimizer, decayed, settings.weight_decay)
    return optimizer


def _anchor(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], decay: float) -> None:
    """Before every step, gradients become those with decay to the weights of now."""
    for parameter in parameters:
        optimizer.state[parameter]["initial"] = parameter.detach().clone()

    @torch.no_grad()
    def pull(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in parameters:  # one after the other: the difference of all at once is one more copy
            assert parameter.grad is not None
            parameter.grad.add_(parameter - optimizer.state[parameter]["initial"], alpha=decay)

    optimizer.register_step_pre_hook(pull)


def _sgd(groups: list[dict[str, Any]], settings: config.Optimizer) -> torch.optim.Optimizer:
    # fused: one pass over memory instead of one for every operation.
    optimizer = torch.optim.SGD(
        groups, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov, fused=True
    )
    if settings.momentum:
        # Zeros equal torch's own start, whose first buffer is the first gradient.
        for group in groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


PART = 1 << 17  # numbers that RMSProp updates at a time on a CPU, small enough for its cache


class RMSProp(torch.optim.Optimizer):
    """RMSProp as TensorFlow computes it, which differs from torch's:

        square = decay * square + (1 - decay) * g^2      (1 at the start)
        buffer = momentum * buffer + lr * g / sqrt(square + epsilon)
        w      = w - buffer

    So epsilon is inside the root, and the learning rate inside the buffer. With `momentum_correction` it is
    outside, w = w - lr * buffer: the same if lr never changes, and else what scaling the buffer by new lr /
    old lr gives (Goyal et al. 2017, section 3). Weight decay is added to g. Gradients are overwritten.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: config.Optimizer) -> None:
        defaults = {"decay": settings.decay, "momentum": settings.momentum, "epsilon": settings.epsilon}
        super().__init__(groups, {"lr": 0.0, "corrected": settings.momentum_correction, **defaults})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "square": torch.ones_like(parameter),
                    "momentum_buffer": torch.zeros_like(parameter),
                }
        self.waits = groups[0]["params"][0].device.type == "cpu"  # to hear of a bad step; a sync on a GPU

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        bad = getattr(self, "found_inf", None)
        if self.waits and bad is not None:
            if bad:
                return
            bad = None
        for group in self.param_groups:
            tensors = [*map(self._tensors, group["params"])]
            for part in _parts(tensors) if self.waits else [zip(*tensors, strict=True)]:
                _update(group, bad, *part)

    def _tensors(self, parameter: Tensor) -> tuple[Tensor, ...]:
        state = self.state[parameter]
        assert parameter.grad is not None
        return parameter, parameter.grad, state["square"], state["momentum_buffer"]


def _parts(tensors: Iterable[tuple[Tensor, ...]]) -> Iterator[Iterator[tuple[Tensor, ...]]]:
    """Tuples of tensors of one shape, cut alike, and put together again to about PART numbers: all first
    tensors of a part, all second ones, and so on."""
    found: list[tuple[Tensor, ...]] = []
    size = 0
    for each in tensors:
        rows = max(1, PART * len(each[0]) // each[0].numel())
        for part in zip(*(torch.split(tensor, rows) for tensor in each), strict=True):
            if found and size + part[0].numel() > PART:
                yield zip(*found, strict=True)
                found, size = [], 0
            found.append(part)
            size += part[0].numel()
    yield zip(*found, strict=True)


def _update(
    group: dict[str, Any],
    bad: Tensor | None,
    parameters: tuple[Tensor, ...],
    gradients: tuple[Tensor, ...],
    squares: tuple[Tensor, ...],
    buffers: tuple[Tensor, ...],
) -> None:
    """The formulas of RMSProp, on tensors of which the n-th belong together."""
    if group["weight_decay"]:
        torch._foreach_add_(gradients, parameters, alpha=group["weight_decay"])
    decay, momentum = group["decay"], group["momentum"]
    if bad is not None:  # in a bad step all is added as 0, and multiplied by 1
        for gradient in gradients:
            gradient.masked_fill_(bad > 0, 0.0)
        decay, momentum = (torch.where(bad > 0, 1.0, each) for each in (decay, momentum))
    torch._foreach_mul_(squares, decay)
    torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - group["decay"])
    roots = torch._foreach_add(squares, group["epsilon"])
    torch._foreach_sqrt_(roots)
    inside, outside = (1.0, group["lr"]) if group["corrected"] else (group["lr"], 1.0)
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_addcdiv_(buffers, gradients, roots, inside)
    moves = buffers if bad is None else torch._foreach_mul(buffers, 1.0 - bad)
    torch._foreach_sub_(parameters, moves, alpha=outside)


def step(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """Update the weights, unless `bad`, on their device, is 1.0; on a GPU nothing waits for it."""
    optimizer.found_inf = bad  # type: ignore[attr-defined]  # torch's name for it, from loss scaling
    optimizer.step()


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by `<parameter or buffer>.<key>`; not copies, because restore writes into
    them."""
    return dict(_state(model, optimizer))


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        for key, value in optimizer.state.get(tensor, {}).items():
            if value is not None:
                yield f"{name}.{key}", value
