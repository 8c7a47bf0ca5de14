"""Sums over ranks of which only half travels: numbers go as float16 or bfloat16, and are added as float32.

In: float32 numbers of each rank. Out: their sums, float32, with the same bits on all ranks. A number is
rounded twice, on its way and as a sum: relative errors of at most 2^-11 (float16) or 2^-8 (bfloat16) each.
float16 loses numbers below 6e-8, keeps fewer digits of those below 6e-5, and is infinite above 65,504.
"""

import math

import torch
from torch import Tensor

from hpcscale import ranks

KINDS = {"none": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class HalfSum:
    """Replaces float32 numbers by their sums over ranks."""

    def __init__(self, numbers: Tensor, kind: torch.dtype) -> None:
        """numbers (n,) float32, the same memory in every sum."""
        self.numbers = numbers
        # Equally much for each rank. Used again: fresh memory would cost its page faults.
        whole = ranks.size() * math.ceil(numbers.numel() / ranks.size())
        self.words = torch.zeros(whole, dtype=kind, device=numbers.device)

    def __call__(self) -> None:
        """(collective) Each rank adds one part of the numbers, in the order of ranks, and gives its sums to
        all."""
        if ranks.size() == 1:
            return
        count = self.numbers.numel()
        self.words[:count].copy_(self.numbers)
        parts = ranks.exchange_rows(self.words).view(ranks.size(), -1)
        total = parts[0].float()
        for part in parts[1:]:
            total += part
        self.numbers.copy_(ranks.gather_rows(total.to(self.words.dtype))[:count])
