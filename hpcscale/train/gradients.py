"""Gradients of all ranks summed in flat buffers; used by train.loop between backward and the optimizer.

Every gradient is copied into its place in a bucket the moment it is complete, and from then on
`parameter.grad` is that place, so the reduction works in place and the optimizer reads its result without
another copy. Buffers are allocated once: fresh memory costs a page fault for every 4 KiB, more than the
reduction itself.
"""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpcscale import ranks

BUCKET = 8 << 20  # numbers in one bucket on a GPU, 32 MiB
EXTRAS = 2  # numbers that ride at the end of the last bucket, so that a step needs no further collective


class GradientBuckets:
    """Sums the gradients of `parameters` over ranks; scale the loss by 1 / global batch to get the mean.

    Of a step with several backward passes the gradients add up, and are reduced after the last. Parameters
    that require no gradient are left out. On a GPU a bucket is reduced as soon as it is full, while
    backward goes on. On the CPU there is one bucket, reduced when backward is through: a reduction in the
    background would only compete with it for the same cores.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], limit: int | None = None, local: Sequence[nn.Parameter] = ()
    ) -> None:
        """limit: most numbers in one bucket, unless one parameter alone is larger. local: those of
        `parameters` that each rank has for itself: a bucket of their own, the last of `buckets`, is never
        reduced. ValueError where nothing is trained on all ranks."""
        alone = {id(parameter) for parameter in local}
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        summed = [parameter for parameter in trained if id(parameter) not in alone]
        if not summed:
            raise ValueError("no parameter is trained on all ranks")
        self.parameters = trained
        limit = limit or (BUCKET if summed[0].is_cuda else 1 << 62)
        groups: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(summed):  # the order in which backward completes them, nearly
            if groups[-1] and sum(p.numel() for p in groups[-1]) + parameter.numel() > limit:
                groups.append([])
            groups[-1].append(parameter)
        self.last = len(groups) - 1  # of those that are reduced: it carries the extras
        # One more where ranks have parameters of their own: whether their gradients are finite, all must
        # know.
        more = EXTRAS + bool(local)
        if local:
            groups.append([parameter for parameter in trained if id(parameter) in alone])
        self.buckets = [self._bucket(n, group, more * (n == self.last)) for n, group in enumerate(groups)]
        self.extras = self.buckets[self.last][-more:]
        self.sizes = [len(group) for group in groups]
        self.missing = list(self.sizes)
        self.handles: list[Any] = []

    def _bucket(self, number: int, group: list[nn.Parameter], more: int) -> Tensor:
        bucket = torch.zeros(sum(p.numel() for p in group) + more, device=group[0].device)
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
            if parameter.grad is not place:  # of the first backward; later ones add to it where it is
                parameter.grad = place.copy_(parameter.grad)
            buckets.missing[number] -= 1
            if buckets.missing[number] == 0 and number < buckets.last:
                buckets._start(number)

        return collect

    def _start(self, number: int) -> None:
        self.handles.append(ranks.start_sum(self.buckets[number], f"hpcscale.gradients.{number}"))

    def clear(self, passes: int = 1) -> None:
        """Before a step of so many backward passes: forget the gradients of the last one."""
        self.missing, self.handles = [size * passes for size in self.sizes], []
        for parameter in self.parameters:
            parameter.grad = None

    def finish(self, *extras: float | Tensor) -> Tensor:
        """After backward: wait for all sums (collective); returns the sums of the extras, on the device.

        They are overwritten by the next step. Where a rank's own gradients are not finite, the last reduced
        bucket is not, on any rank.
        """
        assert not any(self.missing), "a parameter got no gradient"
        more = [0.0 * bucket.sum() for bucket in self.buckets[self.last + 1 :]]  # NaN if it is not finite
        for place, extra in zip(self.extras, (*extras, *more), strict=True):
            place.copy_(extra) if isinstance(extra, Tensor) else place.fill_(extra)
        self._start(self.last)
        for handle in self.handles:
            ranks.wait(handle)
        return self.extras[: len(extras)]
