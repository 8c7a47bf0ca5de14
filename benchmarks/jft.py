"""A label hierarchy and batches of tags of the sizes that Sun et al. 2017 (section 3) print for JFT-300M."""

import numpy as np

CLASSES = 18_291
DEPTH = 12
FAN_OUT = 2_876
TAGS_PER_SAMPLE = 1.26


def parents(seed=0):
    """The parents of every class: [] for ten roots, else one. Depth and largest fan-out are exactly JFT's.

    Parents are drawn evenly among earlier classes, which closes 1.26 tags a record to about 10 classes.
    """
    random = np.random.default_rng(seed)
    found = [[]] * 10
    depths = [0] * 10
    for c in range(10, CLASSES):
        if c < 10 + DEPTH:  # one chain down to the full depth
            parent = c - 1 if c > 10 else 0
        elif c >= CLASSES - FAN_OUT:  # the widest class
            parent = 1
        else:
            parent = int(random.integers(c))
            while parent == 1 or depths[parent] == DEPTH:
                parent = int(random.integers(c))
        found.append([parent])
        depths.append(depths[parent] + 1)
    return found


def batch(random, samples, tags=CLASSES):
    """Tags of `samples` records as CSR: one each and 0.26 more on average."""
    offsets = np.zeros(samples + 1, np.int64)
    np.cumsum(1 + random.poisson(TAGS_PER_SAMPLE - 1, samples), out=offsets[1:])
    return offsets, random.integers(tags, size=offsets[-1], dtype=np.int32)
