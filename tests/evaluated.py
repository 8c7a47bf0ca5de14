"""Results of an evaluation that never was, drawn at random."""

import numpy as np

from hpcscale.evaluate.metrics import Results

CLASSES = 12


def random_results(n, seed=0):
    chance = np.random.default_rng(seed)
    counts = chance.integers(0, 4, n)
    labels = [np.sort(chance.choice(CLASSES, count, replace=False)) for count in counts]
    scores = -np.sort(-chance.integers(0, 9, (n, 8)).astype(np.float32), axis=1)
    return Results(
        samples=np.arange(n, dtype=np.int64),
        losses=chance.random(n, np.float32),
        truths=np.array([row[0] if row.size == 1 else -1 for row in labels], np.int32),
        guesses=np.array([chance.permutation(CLASSES)[:5] for _ in range(n)], np.int32).reshape(n, 5),
        classes=np.array([chance.permutation(CLASSES)[:8] for _ in range(n)], np.int32).reshape(n, 8),
        scores=scores,
        label_offsets=np.append(0, np.cumsum(counts)),
        labels=np.concatenate([*labels, np.zeros(0)]).astype(np.int32),
    )
