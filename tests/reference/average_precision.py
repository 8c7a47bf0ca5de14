"""Slow oracle of hpcscale.evaluate.metrics: loops over every pair, straight from the definitions."""

import numpy as np


def best(scores, k):
    """(n, k) best classes of every row, the lower id first among equals."""
    return np.array([sorted(range(len(row)), key=lambda c: (-row[c], c))[:k] for row in scores])


def class_map(scores, positive, weights, k):
    """Reading (a): scores, positive (n, classes); None without any positive."""
    kept = [set(row) for row in best(scores, k)]
    total = whole = 0.0
    for c in range(scores.shape[1]):
        positives = sum(bool(positive[i, c]) for i in range(len(scores)))
        if not positives:
            continue
        retrieved = [i for i in range(len(scores)) if c in kept[i]]
        ap = 0.0
        for i in retrieved:
            if positive[i, c]:
                above = [j for j in retrieved if scores[j, c] >= scores[i, c]]
                ap += sum(bool(positive[j, c]) for j in above) / len(above)
        total += weights[c] * ap / positives
        whole += weights[c]
    return total / whole if whole else None


def image_map(scores, positive, weights, k):
    """Reading (b)."""
    values = []
    for row, truth, kept in zip(scores, positive, best(scores, k), strict=True):
        limit = sum(sorted((weights[c] for c in np.flatnonzero(truth)), reverse=True)[:k])
        if not limit:
            continue
        gain = 0.0
        for c in kept:
            if truth[c]:
                above = [d for d in kept if row[d] >= row[c]]
                gain += weights[c] * sum(bool(truth[d]) for d in above) / len(above)
        values.append(gain / limit)
    return sum(values) / len(values) if values else None
