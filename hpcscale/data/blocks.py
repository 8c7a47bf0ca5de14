"""Reading in blocks: a shuffle that stays near, for file systems that are slow at places far apart.

In: places of an epoch, its key, how long a block is and how many make a window. Out: the sample at each. As
in order.py nothing is shuffled and nothing is stored: it is a pure function, in constant memory.

The samples lie in a ring that begins at a place of the key, so that what is left over at the end of the ring
and where blocks begin change with each epoch. The ring is cut into blocks of consecutive samples, the blocks
are permuted, and windows of so many blocks, which then lie anywhere in the data, are mixed sample by sample.
"""

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.order import permute, subkeys

BLOCKS, TURN = -1, -2  # numbers of the keys of an epoch; those of its windows are 0, 1, ..


def blockwise(
    indices: NDArray[np.int64], samples: int, key: int | NDArray[np.uint64], block: int, window: int
) -> NDArray[np.int64]:
    """A keyed bijection of range(samples), evaluated at `indices`  # (n,) int64 -> (n,) int64

    block: consecutive samples that stay in one window; window: blocks, at most, that are mixed. Windows
    differ by one block at most, and the last also has the samples that fill no block. Where all samples fit
    in one window, it is `permute`. `key` is one number, or one per index (n,).
    """
    blocks = samples // block
    if blocks <= window:
        return permute(indices, samples, key)
    keys = np.array([key & 0xFFFFFFFFFFFFFFFF], np.uint64) if isinstance(key, int) else key
    windows = -(-blocks // window)
    short, longer = divmod(blocks, windows)  # so many windows are one block longer, the first
    # The window of each place, its first place and its end.
    which = np.minimum(indices // block, blocks - 1)
    which = np.where(
        which < longer * (short + 1), which // (short + 1), longer + (which - longer * (short + 1)) // short
    )
    first = (which * short + np.minimum(which, longer)) * block
    sizes = (short + (which < longer)) * block + (which == windows - 1) * (samples % block)
    largest = short * block + (block if longer else samples % block)
    numbers = np.stack([which, np.full_like(which, BLOCKS), np.full_like(which, TURN)])
    of_window, of_blocks, turn = subkeys(keys, numbers)

    mixed = first + permute(indices - first, largest, of_window, sizes)
    whole = np.minimum(mixed // block, blocks - 1)  # what fills no block stays at the end of the ring
    placed = mixed + (permute(whole, blocks, of_blocks) - whole) * block
    placed = np.where(mixed < blocks * block, placed, mixed)
    turned: NDArray[np.int64] = (placed + (turn % np.uint64(samples)).view(np.int64)) % samples
    return turned
