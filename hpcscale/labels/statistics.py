"""What is in a vocabulary, as plain values: `labels show --json` prints them as they are."""

from typing import Any

from hpcscale.labels.hierarchy import depths, fan_outs
from hpcscale.labels.vocabulary import Vocabulary


def summary(vocabulary: Vocabulary) -> dict[str, Any]:
    """Sizes of the vocabulary. depth: in edges; labels_per_sample: of labelled samples, with ancestors."""
    tree = vocabulary.hierarchy()
    children = fan_outs(tree)
    widest = int(children.argmax()) if len(children) else 0
    return {
        "classes": len(vocabulary.classes),
        "roots": sum(not parents for parents in vocabulary.parents),
        "depth": int(depths(tree).max(initial=0)),
        "fan_out": int(children.max(initial=0)),
        "widest": vocabulary.classes[widest] if children.max(initial=0) else None,
        "tags": len(vocabulary.tags),
        "samples": vocabulary.samples,
        "labelled": vocabulary.labelled,
        "labels_per_sample": sum(vocabulary.counts) / vocabulary.labelled if vocabulary.labelled else 0.0,
        "empty_classes": sum(count == 0 for count in vocabulary.counts),
        "about": vocabulary.about,
    }


def describe(vocabulary: Vocabulary, c: int) -> dict[str, Any]:
    """Class `c`: its senses, tags, counts and relatives; of its ancestors, the most general first."""
    tree = vocabulary.hierarchy()
    ancestors = sorted(tree.ancestors(c), key=lambda a: (len(tree.ancestors(a)), a))
    names = vocabulary.classes
    return {
        "id": c,
        "name": names[c],
        "senses": list(vocabulary.senses[c]),
        "tags": [tag for tag, selected in vocabulary.tags.items() if selected == c],
        "count": vocabulary.counts[c],
        "samples": vocabulary.samples,
        "parents": [names[p] for p in vocabulary.parents[c]],
        "ancestors": [
            {
                "name": names[a],
                "count": vocabulary.counts[a],
                "parents": [names[p] for p in vocabulary.parents[a]],
            }
            for a in ancestors
        ],
        "children": [
            {"name": names[child], "count": vocabulary.counts[child]}
            for child, parents in enumerate(vocabulary.parents)
            if c in parents
        ],
    }
