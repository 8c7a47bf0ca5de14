"""How noisy a label looks: the pictures of a class, from the typical to the odd, on one HTML page.

Figure 2 of Sun et al. 2017. In: a run, which says what network sees and which pictures have which classes.
Out: a page that needs no server and no other file. The page itself is noise.html beside this file;
clusters.py has the numbers.

Features are what the classifier reads, the mean over the last maps, scaled to length 1. A picture has the
classes of its tags and their ancestors, as in training.
"""

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.config import Which
from hpcscale.data.jpeg import BadPicture
from hpcscale.data.manifest import DataError
from hpcscale.data.sheet import start
from hpcscale.data.store import DataSet
from hpcscale.evaluate.sets import Subset, open_set
from hpcscale.files import Usage, check_output, marked, replacing
from hpcscale.ingest.transcode import thumbnail
from hpcscale.inputs import pipeline
from hpcscale.inputs.mending import BadSample
from hpcscale.labels.restrict import read_classes
from hpcscale.labels.targets import OwnClasses
from hpcscale.labels.vocabulary import Vocabulary, VocabularyError, did_you_mean, finder, tag_classes
from hpcscale.models import networks
from hpcscale.models.networks import Trained
from hpcscale.models.preprocessing import Normalized
from hpcscale.progress import Progress, none
from hpcscale.review.clusters import LOOK, Look, cluster, sheet
from hpcscale.samples import grouping
from hpcscale.samples.chosen import open_vocabulary
from hpcscale.text import shown as shown_name

SIDE, QUALITY = 176, 70  # of a thumbnail, pixels; about 5 KB
MARK = b'content="hpcscale labels noise"'  # in noise.html: a page that may be replaced
DEFAULT = 20  # classes on a page, where none are named
CLASSES = 100  # at most, on a page; with them and `Look.most`, features stay below 1 GB
CHUNK = 1 << 16  # samples whose tags are read at a time
BATCH = 32


class Page(NamedTuple):
    classes: list[str]  # on the page
    too_few: list[str]  # left out: fewer than `least` pictures that can be decoded
    pictures: int  # whose features were computed
    bad: list[BadSample]


class Members(NamedTuple):
    """Pictures of a class."""

    total: int  # in the set
    samples: NDArray[np.int64]  # those that are used, rising


def browse(
    run: Path,
    out: Path,
    which: Which = "train",
    wanted: Sequence[str] | Path = (),
    look: Look = LOOK,
    progress: Progress = none,
) -> Page:
    """Write the page `out` about the pictures of a set of a run, as its newest checkpoint sees them.

    wanted: names of classes, tags or wnids; or a file of them, one a line; nothing: the most frequent ones.
    Raises CheckpointError, ConfigError, DataError, EvaluateError, VocabularyError (an unknown class, one
    without pictures, or none with enough of them) and Usage; then nothing is written.
    """
    check_output(out, ours=marked(MARK))
    if look.most < look.least:
        raise Usage(f"{look.most} pictures of a class are too few for {look.clusters} clusters and "
                    f"{look.bins} bins; at least {look.least}")  # fmt: skip
    network = networks.load(run)
    vocabulary = open_vocabulary(network.settings)
    subset = open_set(network.settings, which, vocabulary)
    classes = _wanted(vocabulary, wanted) or _frequent(subset, vocabulary)
    members = find_members(subset, vocabulary, classes, look.most, progress)
    if wanted:
        for c in classes:
            if not members[c].total:
                raise VocabularyError(f"no picture of set '{which}' has the class {vocabulary.classes[c]!r}")
    used = [c for c in classes if len(members[c].samples) >= look.least]
    samples = np.unique(np.concatenate([np.empty(0, np.int64), *(members[c].samples for c in used)]))
    bad: list[BadSample] = []
    seen, features = describe(network, subset.data, samples, bad, progress)
    sheets = {}
    for done, c in enumerate(used):
        rows = np.flatnonzero(np.isin(seen, members[c].samples))
        if len(rows) >= look.least:
            found = cluster(features[rows], look.clusters)
            sheets[c] = sheet(vocabulary.classes[c], members[c].total, seen[rows], found, look)
        progress("cluster", done + 1, len(used))
    if not sheets:
        raise VocabularyError(
            f"set '{which}' has no class with the {look.least} pictures that {look.clusters} clusters and "
            f"{look.bins} bins need"
        )
    _write(out, subset, network, list(sheets.values()), progress)
    too_few = [vocabulary.classes[c] for c in classes if c not in sheets] if wanted else []
    return Page([vocabulary.classes[c] for c in sheets], too_few, len(samples), bad)


def find_members(
    subset: Subset, vocabulary: Vocabulary, classes: Sequence[int], most: int, progress: Progress = none
) -> dict[int, Members]:
    """The pictures of each class, ancestors included. Of more than `most`, those whose files have the
    smallest digests: a sample that is the same wherever they lie."""
    tree = vocabulary.hierarchy()
    selected = tag_classes(vocabulary, subset.data.tags)
    closure = ops.Closure(selected, tree.ancestor_offsets, tree.ancestor_ids)
    totals = dict.fromkeys(classes, 0)
    kept = dict.fromkeys(classes, np.empty((2, 0), np.uint64))  # digests, samples
    for begin in range(0, len(subset.samples), CHUNK):
        samples = subset.samples[begin : begin + CHUNK]
        starts, rows = grouping.by_class(
            *closure.labels(*subset.data.tag_rows(samples)), np.arange(len(samples)), len(tree.names)
        )
        for c in classes:
            found = samples[rows[starts[c] : starts[c + 1]]]
            if found.size:
                totals[c] += found.size
                digests = np.ascontiguousarray(subset.data.source_digests(found)[:, :8]).view("<u8")[:, 0]
                both = np.concatenate([kept[c], [digests, found.astype(np.uint64)]], axis=1)
                kept[c] = both[:, np.lexsort((both[1], both[0]))[:most]]
        progress("tags", begin + len(samples), len(subset.samples))
    return {c: Members(totals[c], np.sort(kept[c][1].astype(np.int64))) for c in classes}


def describe(
    network: Trained, data: DataSet, samples: NDArray[np.int64], bad: list[BadSample], progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The samples that could be decoded, and what the network sees in each, of length 1  # (n,), (n, d)"""
    width = network.model.classifier.in_features
    seen, features = [np.empty(0, np.int64)], [np.empty((0, width), np.float32)]
    batches = pipeline.evaluate_batches(
        data, samples, network.input, batch=BATCH, device=network.device, tell=bad.append
    )
    normalized = Normalized()
    with closing(batches), torch.inference_mode():
        for batch in batches:
            vectors = (
                F.normalize(network.model.features(normalized(batch.images, batch.values))).cpu().numpy()
            )
            if not np.isfinite(vectors).all():
                row = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
                name = data.names(batch.samples[row : row + 1])[0]
                raise DataError(f"{data.folder}: {name}: the network's features are not numbers")
            seen.append(batch.samples)
            features.append(vectors)
            progress("features", sum(map(len, seen)), len(samples))
    return np.concatenate(seen), np.concatenate(features)


def _wanted(vocabulary: Vocabulary, wanted: Sequence[str] | Path) -> list[int]:
    """The ids of named classes, each once, in their order."""
    if isinstance(wanted, Path):
        found = list(read_classes(wanted, vocabulary))
    else:
        find = finder(vocabulary)
        found = []
        for name in wanted:
            if (c := find(name)) is None:
                raise VocabularyError(f"no class {name!r:.80}{did_you_mean(vocabulary, name)}")
            found.append(c)
    if len(set(found)) > CLASSES:
        raise Usage(f"{len(set(found))} classes are too many for one page, at most {CLASSES}; make several")
    return list(dict.fromkeys(found))


def _frequent(subset: Subset, vocabulary: Vocabulary) -> list[int]:
    """The classes that the tags of most samples select, without ancestors; of equal ones, the first."""
    own = OwnClasses(vocabulary, subset.data.tags)
    counts = np.zeros(len(vocabulary.classes), np.int64)
    for begin in range(0, len(subset.samples), CHUNK):
        rows = own.classes(*subset.data.tag_rows(subset.samples[begin : begin + CHUNK]))
        counts += grouping.count(*rows, counts.size)
    order = np.argsort(-counts, kind="stable")
    return [c for c in order[:DEFAULT].tolist() if counts[c]]


def _write(
    out: Path, subset: Subset, network: Trained, sheets: list[dict[str, Any]], progress: Progress
) -> None:
    """Give the tiles names and tags, and write the page."""
    data = subset.data
    for tile in _tiles(sheets):
        samples = np.array([tile["sample"]], np.int64)
        _, ids = data.tag_rows(samples)
        tile |= {"name": data.names(samples)[0], "tags": start([data.tags[tag] for tag in ids])}
    page = {
        "run": shown_name(network.checkpoint.file.resolve().parents[1].name),
        "step": network.checkpoint.step,
        "set": subset.which,
        "data": shown_name(data.folder.resolve().name),
        "classes": sheets,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcscale", "review"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    stream = environment.get_template("noise.html").stream(page=page, blocks=_blocks(data, sheets, progress))
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(stream)


def _tiles(sheets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tile for sheet in sheets for one in sheet["bins"] for tile in one["tiles"]]


def _blocks(data: DataSet, sheets: list[dict[str, Any]], progress: Progress) -> Iterator[str]:
    """Thumbnails as base64, one a line, those of a class together; an empty line where there is none."""
    with ThreadPoolExecutor() as threads:
        for done, sheet in enumerate(sheets):
            samples = np.array([tile["sample"] for tile in _tiles([sheet])], np.int64)
            yield "\n".join(threads.map(_encoded, data.jpegs(samples)))
            progress("thumbnails", done + 1, len(sheets))


def _encoded(jpeg: NDArray[np.uint8]) -> str:
    try:
        return base64.b64encode(thumbnail(jpeg.tobytes(), SIDE, QUALITY)).decode()
    except BadPicture:
        return ""
