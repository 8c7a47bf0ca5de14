"""The page on which a person says of each drawn label whether it is right.

In: a draw (draw.py), the pictures of the data set, and answers given before. Out: one HTML file that needs no
server and no other file. Answers are saved to a file from the page (precision.py has the format). The page
itself is precision.html beside this file.
"""

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from hpcscale.data.jpeg import BadPicture
from hpcscale.data.store import DataSet
from hpcscale.files import check_output, marked, replacing
from hpcscale.ingest.transcode import thumbnail
from hpcscale.labels import wordnet
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.progress import Progress, none
from hpcscale.review.draw import Draw
from hpcscale.review.precision import Answers, Asked, read_answers
from hpcscale.text import shown

SIDE = 400  # of a picture, pixels; with QUALITY about 30 KB on the page
QUALITY = 75
MARK = b'content="hpcscale labels precision"'  # in precision.html: a page that may be replaced
BLOCK = 64  # pictures in one element of the page; the browser reads an element when it shows one of them
TAGS = 12  # of a class that are shown


class Page(NamedTuple):
    drawn: Draw
    missing: list[str]  # names of pictures that cannot be decoded


def write(
    asked: Asked,
    out: Path,
    decisions: Sequence[Path] = (),
    lexicon: Path | None = None,
    progress: Progress = none,
) -> Page:
    """Draw, and write the page `out`.

    decisions: answers given before; a reviewer sees those with the own name. lexicon: WordNet's folder, for
    definitions; by default the usual one, if it is there. Raises what `Asked.draw` does, PairsError and
    WordNetError; then nothing is written. Memory: the draw and a block of pictures.
    """
    selection = Path(asked.selection) if asked.selection else None
    check_output(out, [asked.data, asked.vocabulary, selection, *decisions], marked(MARK))
    data, vocabulary, drawn = asked.draw(progress)
    answers = read_answers(decisions, drawn, vocabulary.classes)
    samples = np.array(list(dict.fromkeys(label.sample for label in drawn.labels)), np.int64)
    number = {sample: index for index, sample in enumerate(samples.tolist())}
    classes = sorted({label.c for label in drawn.labels})
    rank = {c: index for index, c in enumerate(classes)}
    names = data.names(samples)
    page = {
        "id": drawn.id,
        "set": shown(asked.data.resolve().name),
        "block": BLOCK,
        "unsure": True,
        "samples": samples.tolist(),
        "names": names,
        "classes": describe(vocabulary, classes, lexicon),
        "labels": [[number[label.sample], rank[label.c]] for label in drawn.labels],
        "answers": _lines(answers),
    }
    missing = fill("precision.html", out, page, [(data, samples)], progress=progress)
    return Page(drawn, [names[index] for index in missing])


def fill(
    template: str,
    out: Path,
    page: dict[str, Any],
    sets: Sequence[tuple[DataSet, NDArray[np.int64]]],
    side: int = SIDE,
    progress: Progress = none,
) -> list[int]:
    """Write the page `out`: a template of review/ or transfer/ with what it knows, and with pictures.

    page: becomes JSON. sets: data sets and those of their samples (n,) whose pictures, in this order, are on
    the page, of at most side x side pixels. Returns which of the pictures cannot be decoded, from 0. Raises
    DataError; then nothing is written. Memory: a block of pictures.
    """
    missing: list[int] = []
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader("hpcscale", part) for part in ("review", "transfer")])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    blocks = _blocks(sets, side, missing, progress)
    stream = environment.get_template(template).stream(page=page, blocks=blocks, missing=missing)
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(stream)
    return missing


def describe(
    vocabulary: Vocabulary, classes: Sequence[int], lexicon: Path | None = None
) -> list[dict[str, Any]]:
    """What a reviewer has to know of each class: name, tags, the way up to a root, what WordNet says."""
    tags: dict[int, list[str]] = {c: [] for c in classes}
    for tag, c in vocabulary.tags.items():
        if c in tags and len(tags[c]) < TAGS:
            tags[c].append(tag)
    senses = {wnid for c in classes for wnid in vocabulary.senses[c]}
    folder = lexicon or wordnet.FOLDER
    known = senses and (lexicon is not None or (folder / "data.noun").exists())
    meanings = wordnet.definitions(senses, folder) if known else {}
    return [
        {
            "name": vocabulary.classes[c],
            "tags": tags[c],
            "above": [vocabulary.classes[above] for above in _way_up(vocabulary, c)],
            "means": [meanings[wnid] for wnid in vocabulary.senses[c] if wnid in meanings],
        }
        for c in classes
    ]


def _way_up(vocabulary: Vocabulary, c: int) -> list[int]:
    """A parent of the class, its parent, and so on; of several, the first."""
    way = []
    while vocabulary.parents[c]:
        c = vocabulary.parents[c][0]
        way.append(c)
    return way


def _lines(answers: Answers) -> list[dict[str, Any]]:
    return [
        {"place": place, **each._asdict()} for place, by in sorted(answers.items()) for each in by.values()
    ]


def _blocks(
    sets: Sequence[tuple[DataSet, NDArray[np.int64]]], side: int, missing: list[int], progress: Progress
) -> Iterator[str]:
    """Pictures as base64, one a line, BLOCK of them at a time; an empty line where there is no picture."""
    total, done = sum(len(samples) for _, samples in sets), 0
    jpegs = (
        jpeg
        for data, samples in sets
        for begin in range(0, len(samples), BLOCK)
        for jpeg in data.jpegs(samples[begin : begin + BLOCK])
    )
    with ThreadPoolExecutor() as threads:
        while part := list(islice(jpegs, BLOCK)):
            lines = list(threads.map(lambda jpeg: _encoded(jpeg, side), part))
            missing += [done + row for row, line in enumerate(lines) if not line]
            done += len(part)
            progress("pictures", done, total)
            yield "\n".join(lines)


def _encoded(jpeg: NDArray[np.uint8], side: int) -> str:
    try:
        return base64.b64encode(thumbnail(jpeg.tobytes(), side, QUALITY)).decode()
    except BadPicture:
        return ""
