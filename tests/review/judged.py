"""Sets of labels in memory and on disk, and answers about them, for the tests of their review."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hpcscale.data.store import open_data
from hpcscale.ingest.packing import ingest
from hpcscale.labels import build, hierarchy, vocabulary
from hpcscale.labels.hierarchy import csr
from hpcscale.review.precision import Asked


def walk_of(rows, chunk=1000):
    """The walk of samples with these classes, so many at a time."""

    def chunks():
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            yield np.arange(start, start + len(part)), *csr(part)

    return chunks


def long_tail(random, counts):
    """Rows of samples, about one in three of which has two classes, so that class c has counts[c] samples."""
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
    rows = [[]]
    while labels:
        row = {labels.pop()}
        if labels and random.random() < 0.33:
            row.add(labels[-1])
            if len(row) == 2:
                labels.pop()
        rows.append(sorted(row))
    return [*rows, []]


def packed(folder: Path, rows, tree=None) -> Asked:
    """A data set of pictures named by the keys of `rows`, with those tags, each of which is a class."""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for seed, (name, tags) in enumerate(rows.items()):
        pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((50, 40)).save(folder / "pictures" / name, "JPEG", quality=95)
        lines.append(json.dumps({"image": name, "tags": tags}) + "\n")
    (folder / "pictures" / "manifest.jsonl").write_text("".join(lines))
    ingest(folder / "pictures", folder / "data", workers=1)
    data = open_data(folder / "data")
    tree = tree or {tag: [] for tags in rows.values() for tag in tags}
    names = list(tree)
    classes = hierarchy.build(names, [[names.index(above) for above in tree[name]] for name in names])
    vocabulary.save(build.from_hierarchy(data.tags, build.walk(data), classes), folder / "vocabulary.json")
    return Asked(folder / "data", folder / "vocabulary.json", 100)


def answer(drawn, names, place, decision, reviewer="ann", **more):
    label = drawn.labels[place]
    values = {"page": drawn.id, "sample": label.sample, "label": names[label.c], "decision": decision}
    return json.dumps({**values, "reviewer": reviewer, **more}) + "\n"
