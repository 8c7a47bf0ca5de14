"""Gradients of all ranks summed in flat buffers; used by train.loop between backward and the optimizer.

As soon as a gradient is complete, it is copied to its place in a bucket, and `parameter.grad` becomes that
place. So the reduction works in place, and the optimizer reads the result without another copy. Buffers are
allocated once: page faults of new memory, one per 4 KiB, would cost more than the reduction itself.
"""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpcscale import ranks
from hpcscale.train.compress import HalfSum

BUCKET = 8 << 20  # numbers in one bucket on a GPU, 32 MiB
EXTRAS = 2  # numbers at the end of the last bucket, which save a collective of their own


class GradientBuckets:
    """Sums the gradients of `parameters` over ranks; scale the loss by 1 / global batch to get the mean.

    In a step with several backward passes, gradients add up and are reduced after the last. Parameters
    that require no gradient are left out. On a GPU a bucket is reduced as soon as it is full, while
    backward goes on. On the CPU there is one bucket, reduced when backward is through: a reduction in the
    background would only compete with it for the same cores. Compressed, all are reduced then, in turn.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        limit: int | None = None,
        local: Sequence[nn.Parameter] = (),
        compress: torch.dtype | None = None,
    ) -> None:
        """limit: most numbers in one bucket, unless one parameter alone is larger. local: those of
        `parameters` that belong to one rank only; their gradients stay where backward puts them. compress:
        how the others travel, if not as float32. Raises ValueError if no parameter is trained on all
        ranks."""
        alone = {id(parameter) for parameter in local}
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        summed = [parameter for parameter in trained if id(parameter) not in alone]
        if not summed:
            raise ValueError("no parameter is trained on all ranks")
        self.parameters, self.local = trained, [p for p in trained if id(p) in alone]
        limit = limit or (BUCKET if summed[0].is_cuda else 1 << 62)
        groups: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(summed):  # nearly the order in which backward completes them
            if groups[-1] and sum(p.numel() for p in groups[-1]) + parameter.numel() > limit:
                groups.append([])
            groups[-1].append(parameter)
        self.last = len(groups) - 1  # it carries the extras
        # One more extra if ranks have parameters of their own: all must know whether those gradients are
        # finite.
        more = EXTRAS + bool(self.local)
        self.buckets = [self._bucket(n, group, more * (n == self.last)) for n, group in enumerate(groups)]
        self.extras = self.buckets[self.last][-more:]
        self.summed = [*self.buckets[: self.last], self.buckets[self.last][:-more]]  # without the extras
        self.halves = [HalfSum(numbers, compress) for numbers in self.summed] if compress else []
        self.sizes = [len(group) for group in groups]
        self.missing = list(self.sizes)
        self.handles: list[Any] = []

    def _bucket(self, number: int, group: list[nn.Parameter], more: int) -> Tensor:
        bucket = torch.zeros(sum(p.numel() for p in group) + more, device=group[0].device)
        start = 0
        for parameter in group:
            # The same strides as the parameter (channels_last), so that copy and update read memory in order.
            place = bucket[start : start + parameter.numel()].as_strided(parameter.shape, parameter.stride())
            start += parameter.numel()
            hook = self._hook(number, place)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        return bucket

    def _hook(self, number: int, place: Tensor) -> Any:
        # Not a strong `self`: a parameter keeps its hook where Python's garbage collector does not look, so
        # the whole network would never be freed.
        weak = weakref.ref(self)

        def collect(parameter: Tensor) -> None:
            buckets = weak()
            assert buckets is not None
            assert parameter.grad is not None
            if parameter.grad is not place:  # of the first backward; later ones add to it where it is
                parameter.grad = place.copy_(parameter.grad)
            buckets.missing[number] -= 1
            if buckets.missing[number] == 0 and number < buckets.last and not buckets.halves:
                buckets._start(number)

        return collect

    def _start(self, number: int) -> None:
        self.handles.append(ranks.start_sum(self.buckets[number], f"hpcscale.gradients.{number}"))

    def clear(self, passes: int = 1) -> None:
        """Call before a step of so many backward passes: forgets the gradients of the last step."""
        self.missing, self.handles = [size * passes for size in self.sizes], []
        for parameter in self.parameters:
            parameter.grad = None

    def finish(self, *extras: float | Tensor) -> Tensor:
        """After backward: wait for all sums (collective); returns the sums of the extras, on the device.

        The next step overwrites them. If the local gradients of any rank are not finite, neither is the last
        reduced bucket, on all ranks.
        """
        own = [parameter.grad for parameter in self.local if parameter.grad is not None]
        assert not any(self.missing), "a parameter got no gradient"
        assert len(own) == len(self.local), "a parameter got no gradient"
        if own:
            extras += (0.0 * torch.stack([gradient.sum() for gradient in own]).sum(),)  # NaN if not finite
        for place, extra in zip(self.extras, extras, strict=True):
            place.copy_(extra) if isinstance(extra, Tensor) else place.fill_(extra)
        if self.halves:
            for half in self.halves:
                half()
            ranks.sum_(self.extras)
        else:
            for number in range(len(self.handles), len(self.buckets)):
                self._start(number)
            for handle in self.handles:
                ranks.wait(handle)
        return self.extras[:-1] if own else self.extras

    def clip(self, most: float) -> None:
        """After `finish`: scale all gradients down, alike, if their norm over all weights is above `most`; 0:
        never. None may be of one rank alone, whose norm others do not know. What is not finite stays so."""
        if not most:
            return
        assert not self.local
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in self.summed]))
        self.multiply((most / norm).clamp(max=1.0))

    def multiply(self, factor: Tensor) -> None:
        """Multiply all gradients, those of this rank alone too, by a number on the device."""
        own = [parameter.grad for parameter in self.local if parameter.grad is not None]
        torch._foreach_mul_([*self.summed, *own], factor)
