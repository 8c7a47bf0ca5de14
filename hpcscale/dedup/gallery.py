"""The gallery: one HTML page on which a person decides which pairs show the same picture.

In: a pairs file and the pictures of both sides. Out: a page that needs no server and no other file, with
every picture in it once, as a thumbnail. Decisions are saved to a file from the page (pairs.py has the
format). The page itself is gallery.html beside this file.
"""

import base64
import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jinja2

from hpcscale.dedup.places import Place, find_pictures, thumbnail
from hpcscale.files import aside, check_output, commit, marked
from hpcscale.pairs import Decisions, Pair, PairsError, read_decisions, read_pairs
from hpcscale.text import shown as shown_name

SIDE = 176  # of a thumbnail, pixels; with QUALITY about 5 KB
QUALITY = 70
MARK = b'content="hpcscale dedup gallery"'  # in gallery.html: a page that may be replaced
BLOCK = 128  # thumbnails in one element of the page; the browser reads an element when it shows one of them
LIMIT = 10_000

Progress = Callable[[str, int, int | None], None]


class Gallery(NamedTuple):
    pairs: int  # on the page
    found: int  # in the file
    pictures: int
    missing: list[str]  # pictures that are not there or cannot be decoded


def gallery(
    pairs: Path,
    out: Path,
    a: Path,
    b: Path,
    decisions: Path | None = None,
    limit: int = LIMIT,
    method: str = "",
    progress: Progress = lambda stage, done, total: None,
) -> Gallery:
    """Write the page `out`.

    a, b: the sources of the two columns of `pairs`: data-set folders, folders of pictures, tars. decisions:
    those made earlier, which the page shows. limit: only this many pairs, the closest. method: what the
    distances are, for the reader. Raises DataError, SourceError, or PairsError (also if a source has none of
    the pictures of its column); then nothing is written. Memory: the names of what is shown, and a block of
    thumbnails.
    """
    check_output(out, [pairs, a, b, decisions], marked(MARK))
    decided = read_decisions(decisions) if decisions else {}
    shown, total = closest(read_pairs(pairs), limit)
    sources = {"a": a, "b": b}
    same = a.resolve() == b.resolve()
    keys = [[("b" if same else "a", pair.a), ("b", pair.b)] for pair in shown]
    # In the order of the page, so that pictures that are seen together lie in one block.
    pictures = list(dict.fromkeys(key for pair in keys for key in reversed(pair)))
    places: list[Place | None] = [None] * len(pictures)
    for side in ("b",) if same else ("a", "b"):
        names = {name for of, name in pictures if of == side}
        found = find_pictures(sources[side], names)
        if names and not found:
            raise PairsError(
                f"{sources[side]}: has none of the {len(names)} pictures of column {side} of {pairs}"
            )
        for index, (of, name) in enumerate(pictures):
            if of == side:
                places[index] = found.get(name)
    number = {picture: index for index, picture in enumerate(pictures)}
    page = {
        "id": hashlib.blake2b(json.dumps(shown).encode(), digest_size=8).hexdigest(),
        "a": shown_name(a.resolve().name),
        "b": shown_name(b.resolve().name),
        "method": method,
        "found": total,
        "block": BLOCK,
        "names": [name for _, name in pictures],
        "pairs": [
            [*(number[key] for key in pair), row.distance] for pair, row in zip(keys, shown, strict=True)
        ],
        "decisions": _lines(decided),
    }
    missing: list[str] = []
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcscale", "dedup"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    stream = environment.get_template("gallery.html").stream(
        page=page, blocks=_blocks(pictures, places, missing, progress)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(out)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(stream)
        commit(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return Gallery(len(shown), total, len(pictures), missing)


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
    pictures: list[tuple[str, str]], places: list[Place | None], missing: list[str], progress: Progress
) -> Iterator[str]:
    """Thumbnails as base64, one a line, BLOCK of them at a time; an empty line where there is no picture."""
    with ThreadPoolExecutor() as threads:
        for begin in range(0, len(pictures), BLOCK):
            part = range(begin, min(begin + BLOCK, len(pictures)))
            lines = list(threads.map(_encoded, (places[index] for index in part)))
            missing += [pictures[index][1] for index, line in zip(part, lines, strict=True) if not line]
            progress("thumbnails", part.stop, len(pictures))
            yield "\n".join(lines)


def _encoded(place: Place | None) -> str:
    return base64.b64encode(thumbnail(place, SIDE, QUALITY)).decode() if place else ""
