"""Gradients of all ranks summed in flat buffers; used by train.loop between backward and the optimizer.

Every gradient is copied into its place in a bucket the moment it is complete, and from then on
`parameter.grad` is that place, so the reduction works in place and the optimizer reads its result without
another copy. Buffers are allocated once: fresh memory costs a page fault for every 4 KiB, more than the
reduction itself.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hpcscale import ranks

EXTRAS = 2  # numbers that ride at the end of the last bucket, so that a step needs no further collective
BUCKET = 8 << 20  # numbers in one bucket on a GPU, 32 MiB


class GradientBuckets:
    """Sums the gradients of `parameters` over ranks; scale the loss by 1 / global batch to get the mean.

    On a GPU a bucket is reduced as soon as it is full, while backward goes on. On the CPU there is one
    bucket, reduced when backward is through: a reduction in the background would only compete with it for the
    same cores.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], limit: int | None = None) -> None:
        """limit: most numbers in one bucket, unless one parameter alone is larger."""
        self.parameters = list(parameters)
        limit = limit or (BUCKET if self.parameters[0].is_cuda else 1 << 62)
        groups: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(self.parameters):  # the order in which backward completes them, nearly
            if groups[-1] and sum(p.numel() for p in groups[-1]) + parameter.numel() > limit:
                groups.append([])
            groups[-1].append(parameter)
        self.buckets = [self._bucket(n, group, len(groups)) for n, group in enumerate(groups)]
        self.extras = self.buckets[-1][-EXTRAS:]
        self.sizes = [len(group) for group in groups]
        self.missing = list(self.sizes)
        self.handles: list[Any] = []

    def _bucket(self, number: int, group: list[nn.Parameter], groups: int) -> Tensor:
        length = sum(p.numel() for p in group)
        bucket = torch.zeros(length + (EXTRAS if number == groups - 1 else 0), device=group[0].device)
        start = 0
        for parameter in group:
            # The strides of the parameter (channels_last), so that copy and update run straight through
            # memory.
            place = bucket[start : start + parameter.numel()].as_strided(parameter.shape, parameter.stride())
            start += parameter.numel()
            hook = self._hook(number, place)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        return bucket

    def _hook(self, number: int, place: Tensor) -> Any:
        # A parameter holds its hook where Python's collector does not look: through a strong `self` it would
        # hold itself, and the whole network for ever.
        weak = weakref.ref(self)

        def collect(parameter: Tensor) -> None:
            buckets = weak()
            assert buckets is not None
            assert parameter.grad is not None
            parameter.grad = place.copy_(parameter.grad)
            buckets.missing[number] -= 1
            # The last bucket carries the extras and is started by `finish`.
            if buckets.missing[number] == 0 and number < len(buckets.buckets) - 1:
                buckets._start(number)

        return collect

    def _start(self, number: int) -> None:
        self.handles.append(ranks.start_sum(self.buckets[number], f"hpcscale.gradients.{number}"))

    def clear(self) -> None:
        """Before backward: forget the gradients of the last step."""
        self.missing, self.handles = list(self.sizes), []
        for parameter in self.parameters:
            parameter.grad = None

    def finish(self, *extras: float | Tensor) -> Tensor:
        """After backward: wait for all sums (collective); returns the sums of the extras, on the device.

        They are overwritten by the next step.
        """
        assert not any(self.missing), "a parameter got no gradient"
        for place, extra in zip(self.extras, extras, strict=True):
            place.copy_(extra) if isinstance(extra, Tensor) else place.fill_(extra)
        self._start(len(self.buckets) - 1)
        for handle in self.handles:
            ranks.wait(handle)
        return self.extras
