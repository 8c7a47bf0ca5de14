"""The gallery: one HTML page on which a person decides which pairs show the same picture.

In: a pairs file and the pictures of both sides. Out: a page that needs no server and no other file, with
every picture in it once, as a thumbnail. Decisions are saved to a file from the page (pairs.py has the
format). The page itself is gallery.html beside this file.
"""

import base64
import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2

from hpcscale.dedup.places import Place, find_pictures, thumbnail
from hpcscale.files import check_output, marked, replacing
from hpcscale.pairs import Decisions, Pair, PairsError, read_decisions, read_pairs
from hpcscale.progress import Progress, none
from hpcscale.text import shown as shown_name

SIDE = 176  # of a thumbnail, pixels; with QUALITY about 5 KB
QUALITY = 70
MARK = b'content="hpcscale dedup gallery"'  # in gallery.html: a page that may be replaced
BLOCK = 128  # thumbnails in one element of the page; the browser reads an element when it shows one of them
LIMIT = 10_000
Side = Literal["a", "b"]


class Sources(NamedTuple):
    """Where the pictures of the two columns are: data sets, folders of pictures, tars."""

    a: Path
    b: Path


class Picture(NamedTuple):
    side: Side  # the source that it is in; b where both columns have one source
    name: str


class Gallery(NamedTuple):
    pairs: int  # on the page
    found: int  # in the file
    pictures: int
    missing: list[str]  # pictures that are not there or cannot be decoded


def gallery(
    pairs: Path,
    out: Path,
    sources: Sources,
    decisions: Path | None = None,
    limit: int = LIMIT,
    method: str = "",
    progress: Progress = none,
) -> Gallery:
    """Write the page `out`.

    decisions: those made earlier, which the page shows. limit: only this many pairs, the closest. method:
    what the distances are, for the reader. Raises DataError, SourceError, or PairsError (also if a source has
    none of the pictures of its column); then nothing is written. Memory: the names of what is shown, and a
    block of thumbnails.
    """
    check_output(out, [pairs, *sources, decisions], marked(MARK))
    decided = read_decisions(decisions) if decisions else {}
    shown, total = closest(read_pairs(pairs), limit)
    by_side: dict[Side, Path] = {"a": sources.a, "b": sources.b}
    if sources.a.resolve() == sources.b.resolve():
        del by_side["a"]
    first = next(iter(by_side))
    keys = [(Picture(first, pair.a), Picture("b", pair.b)) for pair in shown]
    # In the order of the page, so that pictures that are seen together lie in one block.
    pictures = list(dict.fromkeys(key for a, b in keys for key in (b, a)))
    places = _places(pictures, by_side, pairs)
    number = {picture: index for index, picture in enumerate(pictures)}
    page = {
        "id": hashlib.blake2b(json.dumps(shown).encode(), digest_size=8).hexdigest(),
        "a": shown_name(sources.a.resolve().name),
        "b": shown_name(sources.b.resolve().name),
        "method": method,
        "found": total,
        "block": BLOCK,
        "names": [name for _, name in pictures],
        "pairs": [[number[a], number[b], row.distance] for (a, b), row in zip(keys, shown, strict=True)],
        "decisions": _lines(decided),
    }
    missing: list[str] = []
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcscale", "dedup"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    stream = environment.get_template("gallery.html").stream(
        page=page, blocks=_blocks(pictures, places, missing, progress)
    )
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(stream)
    return Gallery(len(shown), total, len(pictures), missing)


def _places(pictures: list[Picture], sources: dict[Side, Path], pairs: Path) -> list[Place | None]:
    """Where each picture lies; None: not found. Raises PairsError if a source has none of its pictures."""
    found: dict[Picture, Place] = {}
    for side, source in sources.items():
        names = {name for of, name in pictures if of == side}
        there = find_pictures(source, names)
        if names and not there:
            raise PairsError(f"{source}: has none of the {len(names)} pictures of column {side} of {pairs}")
        found |= {Picture(side, name): place for name, place in there.items()}
    return [found.get(picture) for picture in pictures]


def closest(pairs: Iterable[Pair], limit: int) -> tuple[list[Pair], int]:
    """The `limit` closest pairs, and how many pairs there are. Pairs of one picture of B stand together,
    sorted by distance; pictures of B are sorted by their closest candidate. Memory: `limit` pairs."""
    count = 0

    def counted() -> Iterator[Pair]:
        nonlocal count
        for pair in pairs:
            count += 1
            yield pair

    kept = heapq.nsmallest(limit, counted(), key=lambda pair: (pair.distance, pair.b, pair.a))
    unique = list({(pair.a, pair.b): pair for pair in reversed(kept)}.values())
    nearest: dict[str, int | float] = {}
    for pair in unique:
        nearest[pair.b] = min(pair.distance, nearest.get(pair.b, pair.distance))
    unique.sort(key=lambda pair: (nearest[pair.b], pair.b, pair.distance, pair.a))
    return unique, count


def _lines(decided: Decisions) -> list[dict[str, str]]:
    return [{"a": a, "b": b, **decision._asdict()} for (a, b), decision in sorted(decided.items())]


def _blocks(
    pictures: list[Picture], places: list[Place | None], missing: list[str], progress: Progress
) -> Iterator[str]:
    """Thumbnails as base64, one a line, BLOCK of them at a time; an empty line where there is no picture."""
    with ThreadPoolExecutor() as threads:
        for begin in range(0, len(pictures), BLOCK):
            part = range(begin, min(begin + BLOCK, len(pictures)))
            lines = list(threads.map(_encoded, (places[index] for index in part)))
            missing += [pictures[index].name for index, line in zip(part, lines, strict=True) if not line]
            progress("thumbnails", part.stop, len(pictures))
            yield "\n".join(lines)


def _encoded(place: Place | None) -> str:
    return base64.b64encode(thumbnail(place, SIDE, QUALITY)).decode() if place else ""
