"""Target rows, batch 1024 x 18,291 classes, 1.26 tags a sample closed to about 10 classes.

Ours starts from tags and closes them over all ancestors. The peers are given lists that are closed already,
except scipy's product and the Python sets, which close them as well. All write into a buffer made once, where
they can.
"""

import itertools

import numpy as np
import torch
from scipy import sparse
from sklearn.preprocessing import MultiLabelBinarizer

from benchmarks import jft
from benchmarks.harness import interleave, table
from hpcscale import ops
from hpcscale.labels import hierarchy

BATCH = 1024
BATCHES = 16  # different ones in turn, so that rows are not in cache from being just written


def run() -> str:
    tree = hierarchy.build([str(c) for c in range(jft.CLASSES)], jft.parents())
    closure = ops.Closure(np.arange(jft.CLASSES, dtype=np.int32), tree.ancestor_offsets, tree.ancestor_ids)
    random = np.random.default_rng(0)
    batches = [jft.batch(random, BATCH) for _ in range(BATCHES)]
    closed = [closure.labels(*each) for each in batches]

    functions = {f"hpcscale, {kind}": _ours(closure, kind, batches) for kind in ("ones", "shares")}
    functions["hpcscale, ones, tags as often as in the papers (Zipf)"] = _ours(
        closure, "ones", [(o, _zipf(random, len(ids))) for o, ids in batches]
    )
    functions |= {
        "memset of the float32 rows": _memset(),
        "NumPy: fill(0), then assign at indices": _numpy(closed),
        "scipy: sparse product, toarray, uint8": _scipy(tree, batches),
        "torch: zero_(), then scatter_": _torch(closed),
        "scikit-learn: MultiLabelBinarizer": _sklearn(closed),
        "Python sets, index_put_ into fresh rows": _python(tree, batches),
    }
    rates = interleave(functions, BATCH)
    ours = rates[0].per_core
    by_name = {rate.name: rate.per_core for rate in rates}
    notes = [
        f"{np.mean([len(ids) for _, ids in batches]) / BATCH:.2f} tags a row, "
        f"{np.mean([len(ids) for _, ids in closed]) / BATCH:.2f} classes with ancestors",
        f"wanted 20 million rows/s per core: {ours / 1e6:.1f} million",
        f"wanted 200 x MultiLabelBinarizer: {ours / by_name['scikit-learn: MultiLabelBinarizer']:.0f} x",
        f"wanted 10 x memset: {ours / by_name['memset of the float32 rows']:.1f} x",
    ]
    return table("Targets: 1024 x 18,291", "rows", rates, notes)


def _ours(closure, kind, batches):
    rows = ops.TargetRows(closure, 0, jft.CLASSES, kind, np.zeros(_shape(), np.float32))
    turn = itertools.cycle(batches)
    return lambda: rows.fill(*next(turn))


def _memset():
    buffer = np.zeros(_shape(), np.float32)
    return lambda: buffer.fill(0)


def _numpy(closed):
    buffer = np.zeros(_shape(), np.float32)
    turn = itertools.cycle(closed)

    def fill():
        offsets, classes = next(turn)
        buffer.fill(0)
        buffer[np.repeat(np.arange(BATCH), np.diff(offsets)), classes] = 1

    return fill


def _scipy(tree, batches):
    n = jft.CLASSES
    above = sparse.csr_matrix(
        (np.ones(len(tree.ancestor_ids), np.uint8), tree.ancestor_ids, tree.ancestor_offsets), (n, n)
    ) + sparse.identity(n, np.uint8, "csr")
    turn = itertools.cycle(batches)
    buffer = np.zeros(_shape(), np.uint8)

    def fill():
        offsets, ids = next(turn)
        tags = sparse.csr_matrix((np.ones(len(ids), np.uint8), ids, offsets), (BATCH, n))
        (tags @ above).toarray(out=buffer)

    return fill


def _torch(closed):
    torch.set_num_threads(1)
    buffer = torch.zeros(_shape())
    # scatter_ needs equally many indices in every row: short rows repeat one of theirs.
    padded = []
    for offsets, classes in closed:
        most = int(np.diff(offsets).max())
        places = np.minimum(offsets[:-1, None] + np.arange(most), offsets[1:, None] - 1)
        padded.append(torch.from_numpy(classes[places].astype(np.int64)))
    turn = itertools.cycle(padded)

    def fill():
        buffer.zero_()
        buffer.scatter_(1, next(turn), 1.0)

    return fill


def _sklearn(closed):
    binarizer = MultiLabelBinarizer(classes=range(jft.CLASSES))
    lists = [[ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] for offsets, ids in closed]
    binarizer.fit(lists[0])
    turn = itertools.cycle(lists)
    return lambda: binarizer.transform(next(turn))


def _python(tree, batches):
    above = [[c, *tree.ancestors(c)] for c in range(jft.CLASSES)]
    lists = [[ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] for offsets, ids in batches]
    turn = itertools.cycle(lists)

    def fill():
        rows, columns = [], []
        for row, tags in enumerate(next(turn)):
            classes = {c for t in tags for c in above[t]}
            columns += classes
            rows += [row] * len(classes)
        torch.zeros(_shape()).index_put_((torch.tensor(rows), torch.tensor(columns)), torch.tensor(1.0))

    return fill


def _zipf(random, size):
    """Tags whose frequencies fall as 1 / rank, ranks given to classes at random."""
    shares = 1 / np.arange(1, jft.CLASSES + 1)
    ranks = np.random.default_rng(1).permutation(jft.CLASSES)
    return ranks[random.choice(jft.CLASSES, size, p=shares / shares.sum())].astype(np.int32)


def _shape():
    return BATCH, jft.CLASSES
