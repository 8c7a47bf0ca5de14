"""What a library must do for ranks to be ranks; `horovod.py` and `distributed.py` do it, `ranks` calls it.

Tensors come without gaps, in the order of their shape, on the CPU or on this rank's GPU. All but the numbers
of the rank is collective. If another rank has ended, whatever waits for it raises RankLost.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from hpcscale.files import Told
from hpcscale.ranks.exits import LOST

if TYPE_CHECKING:  # the launcher only starts ranks, and should not import torch
    from torch import Tensor

Backend = Literal["horovod", "torch"]


class RankLost(Told):
    """Another rank has ended, or has never come."""

    code = LOST


class JoinError(Told):
    """The library that shall connect the ranks cannot be used. The message says why, and what can."""


class Communicator(Protocol):
    """All ranks, as one of them sees them."""

    backend: Backend

    def rank(self) -> int: ...
    def size(self) -> int: ...
    def local_rank(self) -> int: ...
    def local_size(self) -> int: ...

    def start_sum(self, tensor: "Tensor", name: str) -> Any:
        """Begin to replace a tensor of floats by the sum; a handle for `wait`. Sums that are under way at the
        same time have different names, and begin in the same order on all ranks."""

    def wait(self, handle: Any) -> None:
        """Until the sum is there; on a GPU only the stream waits."""

    def max(self, tensor: "Tensor") -> None:
        """Replace each number by the largest."""

    def gather_rows(self, tensor: "Tensor") -> "Tensor":
        """(n, ...), n alike -> (ranks * n, ...), rank by rank."""

    def gather(self, tensor: "Tensor") -> "Tensor":
        """(n, ...), n as each rank has it -> (sum of n, ...), rank by rank."""

    def exchange_rows(self, tensor: "Tensor") -> "Tensor":
        """(ranks * n, ...), n rows for each rank -> (ranks * n, ...), those from each."""

    def broadcast(self, tensor: "Tensor", name: str) -> None:
        """Replace a tensor by that of rank 0."""

    def barrier(self) -> None:
        """Until all ranks are here."""

    def shutdown(self) -> None:
        """Leave; ranks that wait for this one are told."""
