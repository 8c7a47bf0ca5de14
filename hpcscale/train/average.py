"""The average of the weights over the steps (Polyak averaging), by which a network is judged and used.

It lies in the optimizer's state, of trained parameters and of the statistics of normalisations. A checkpoint
holds it in the place of the weights, so that all who read a network read the average, and beside the momentum
the weights themselves, from which training goes on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def begin(model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
    """From here on there is an average, unless `decay` is 0: that of the first weights."""
    if not decay:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.requires_grad or (tensor.is_floating_point() and not isinstance(tensor, nn.Parameter)):
            optimizer.state[tensor]["average"] = tensor.detach().clone()


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer, decay: float, step: int, bad: Tensor) -> None:
    """Add the weights after `step` steps: average = d average + (1 - d) weights, unless `bad`, on the device,
    is 1.0.

    d = min(decay, (1 + step) / (10 + step)), TensorFlow's, so that first weights do not stay for long.
    """
    if not decay:
        return
    share = (1.0 - min(decay, (1 + step) / (10 + step))) * (1.0 - bad)
    tensors, averages = map(list, zip(*_pairs(optimizer), strict=True))
    differences = torch._foreach_sub(tensors, averages)
    torch._foreach_mul_(differences, share)
    torch._foreach_add_(averages, differences)


@contextmanager
def in_use(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the network is the average, if there is one."""
    pairs = list(_pairs(optimizer))
    weights = [tensor.data for tensor, _ in pairs]
    try:
        for tensor, average in pairs:
            tensor.data = average
        yield
    finally:
        for (tensor, _), data in zip(pairs, weights, strict=True):
            tensor.data = data


def stored(
    model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of network and optimizer under the names that they have in a checkpoint: averages as the
    network's, the weights as the optimizer's `<name>.weights`."""
    averages = {name: optimizer[key] for name in model if (key := f"{name}.average") in optimizer}
    others = {name: value for name, value in optimizer.items() if not name.endswith(".average")}
    weights = {f"{name}.weights": model[name] for name in averages}
    return {**model, **averages}, others | weights


def _pairs(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    for tensor, state in optimizer.state.items():
        if "average" in state:
            yield tensor, state["average"]
