"""Slow oracle of hpcscale.labels.targets: rows made with Python sets."""

import numpy as np


def closed(classes, parents):
    """All these classes and their ancestors, by walking up from each."""
    found = set()
    waiting = list(classes)
    while waiting:
        c = waiting.pop()
        if c not in found:
            found.add(c)
            waiting.extend(parents[c])
    return found


def labels(records, tag_classes, parents):
    """For each record (a list of tag ids) the sorted classes that hold."""
    return [sorted(closed({tag_classes[t] for t in record} - {-1}, parents)) for record in records]


def rows(kind, records, tag_classes, parents, lo, hi):
    """(records, hi - lo) float32."""
    dense = np.zeros((len(records), len(parents)), np.float32)
    for row, classes in zip(dense, labels(records, tag_classes, parents), strict=True):
        for c in classes:
            row[c] = np.float32(1) / np.float32(len(classes)) if kind == "softmax" else 1
    return dense[:, lo:hi]


def truths(records, tag_classes):
    """The only class that a record's tags select, or -1."""
    selected = [{tag_classes[t] for t in record} - {-1} for record in records]
    return [min(classes) if len(classes) == 1 else -1 for classes in selected]
