"""The work of a search: blocks of A against blocks of B, shared by array tasks, resumable, in bounded memory.

In: the codes of one or two files and a function that searches one block of each. Out: the lines of a pairs
file (pairs.py), in the order of A's rows.

A tile is a block of A and one of B. Its pairs are written, as (row of A, row of B, distance), into a file of
the work folder. When all tiles are done, the files of each block of A are sorted in pieces of `PIECE` and
written out as lines. With `out`, the work folder is OUT.parts. It stays when the search is killed, so that
the same call can go on; OUT itself appears when all is done. Task I of N does the tiles I, I + N, I + 2 N and
so on. The call without a part does what the tasks left, and writes OUT.

The first call states in task.json what is searched for and how long the blocks are. Later calls refuse to
search for anything else, and take over the length of the blocks. The lines do not depend on it.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.codes import Codes
from hpcscale.data.parts import Part, locked, parts_folder, remove_parts
from hpcscale.dedup.lines import Write, lines
from hpcscale.files import Usage, remove_asides, replacing, write_once
from hpcscale.progress import Progress

PIECE = 1 << 22  # pairs sorted at a time; 24 bytes each
LEAST = 1 << 12  # codes in a block, at least: a shorter one is not worth a tile of its own
MANY = 100_000  # pairs from which on there may be a warning
ROW = 24  # bytes of one found pair: position in A, position in B, distance, int64 each

_log = logging.getLogger(__name__)

RowNumbers = NDArray[np.int64]  # (n,)
Found = Callable[[NDArray[np.int64]], None]  # takes (n, 3): row, row, distance
Done = Callable[[float], None]  # takes how much is done, from 0 to 1


class SearchError(Usage):
    """A search that must not start; the message says why."""


class Tile(NamedTuple):
    """A block of A that starts at row x, and one of B at y, or all of B."""

    x: int
    y: int | None

    @property
    def file(self) -> str:
        return f"{self.x}-{'all' if self.y is None else self.y}.pairs"


class Search(NamedTuple):
    """What is searched for, and how."""

    a: Codes
    b: Codes | None  # None: within A
    task: dict[str, int | str | None]  # what distinguishes this search from others
    block: int  # codes of either side in use at a time
    find: Callable[[Tile, int, Found, Done], None]  # in a tile of blocks of this length; gives rows of files
    nearest: bool  # tiles are a block of A and all of B, and their pairs are found in the final order
    digits: Callable[[int], str]  # a distance as text


class _Many:
    """Warns of very many pairs, again at every doubling: pictures must then be there many times."""

    def __init__(self, search: Search) -> None:
        pictures = len(search.a.codes) + len(search.b.codes if search.b else ())
        self.pairs, self.next = 0, max(MANY, 20 * pictures)
        self.advice = "; --groups writes a line a picture instead" if search.b is None else ""

    def add(self, pairs: int) -> None:
        self.pairs += pairs
        if self.pairs >= self.next:
            self.next = 2 * self.pairs
            _log.warning("%d pairs so far: many of the pictures are alike%s", self.pairs, self.advice)


def run(search: Search, out: Path | None, part: Part | None, progress: Progress) -> int:
    """Do the whole search, or the share of one task. Returns the number of pairs. Raises SearchError."""
    if part is not None and out is None:
        raise SearchError("a part needs --out, next to which the tasks leave what they find")
    many = _Many(search)
    length = search.block if part is None else _shorter(search, part[1])
    with _work_folder(out, search.task, length, part) as (folder, block, alone):
        every = tiles(search, block)
        mine = every if part is None else every[part[0] :: part[1]]
        for number, tile in enumerate(mine):

            def done(of_tile: float, number: int = number) -> None:
                progress("search", int(1000 * (number + of_tile)), 1000 * len(mine))

            file = folder / tile.file
            if not file.exists():
                if alone:
                    remove_asides(file)
                with replacing(file) as temporary:
                    _do(search, tile, block, temporary, done, many)
        progress("search", 1000 * len(mine), 1000 * len(mine))
        if part is not None:
            return sum((folder / tile.file).stat().st_size for tile in mine) // ROW
        with lines(out, search.a, search.b, search.digits) as write:
            return _write(search, every, block, folder, write)


def tiles(search: Search, block: int) -> list[Tile]:
    other = search.a if search.b is None else search.b
    starts_a, starts_b = range(0, len(search.a.codes), block), range(0, len(other.codes), block)
    if search.nearest:
        return [Tile(x, None) for x in starts_a]
    return [Tile(x, y) for x in starts_a for y in starts_b if search.b is not None or x <= y]


def _shorter(search: Search, tasks: int) -> int:
    """A length of blocks so short that every task has tiles to do, and no task waits long for another."""
    block = search.block
    while len(tiles(search, block)) < 2 * tasks and block // 2 >= LEAST:
        block //= 2
    return block


@contextmanager
def _work_folder(
    out: Path | None, task: dict[str, int | str | None], length: int, part: Part | None
) -> Iterator[tuple[Path, int, bool]]:
    """The folder for the pairs of tiles, the length of the blocks there, and whether this call has it alone.
    Raises SearchError if an earlier call began another search there.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="hpcscale-search-") as name:
            yield Path(name), length, True
        return
    folder = parts_folder(out)
    with locked(folder, part) as alone:
        content = json.dumps(task | {"block": length}, sort_keys=True).encode() + b"\n"
        stated = json.loads(write_once(folder / "task.json", content))
        block = stated.pop("block")
        if stated != task:
            raise SearchError(
                f"{folder}: an interrupted search had other files or options "
                f"({json.dumps(stated, sort_keys=True)}); finish that one, or remove the folder"
            )
        yield folder, block, alone
        if part is None:
            remove_parts(out)


def _do(search: Search, tile: Tile, block: int, file: Path, done: Done, many: _Many) -> None:
    """Write what is found in a tile."""
    with file.open("wb") as stream:

        def found(pairs: NDArray[np.int64]) -> None:
            stream.write(pairs.astype("<i8", copy=False).data)
            many.add(len(pairs))

        search.find(tile, block, found, done)
    for codes in (search.a, search.b):
        if codes is not None:
            codes.release()


def _write(search: Search, every: list[Tile], block: int, folder: Path, write: Write) -> int:
    """Write the pairs of all tiles, in order. Returns their number."""
    pairs = 0
    for x in range(0, len(search.a.codes), block):
        files = [folder / tile.file for tile in every if tile.x == x]
        for found in _read(files) if search.nearest else _sorted(folder, files, x, block):
            write(found)
            pairs += len(found)
        for codes in (search.a, search.b or search.a):
            codes.release()
    return pairs


def _sorted(folder: Path, files: list[Path], start: int, block: int) -> Iterator[NDArray[np.int64]]:
    """The pairs of the block of A that starts at row `start`, in order, in pieces.

    More than `PIECE` pairs are first distributed to files, one per piece. A piece holds whole rows of A.
    """
    if sum(file.stat().st_size for file in files) > PIECE * ROW:
        counts = np.zeros(block, np.int64)
        for found in _read(files):
            counts += np.bincount(found[:, 0] - start, minlength=block)
        piece_of = (np.cumsum(counts) - counts) // PIECE
        names = [folder / f"piece-{piece}" for piece in range(int(piece_of[-1]) + 1)]
        for name in names:
            name.write_bytes(b"")
        for found in _read(files):
            pieces = piece_of[found[:, 0] - start]
            for piece in np.unique(pieces).tolist():
                with names[piece].open("ab") as stream:
                    stream.write(found[pieces == piece].data)
        groups = [[name] for name in names]
    else:
        groups = [files]
    for group in groups:
        if parts := list(_read(group)):
            found = np.concatenate(parts)
            yield found[np.lexsort((found[:, 1], found[:, 0]))]


def _read(files: list[Path]) -> Iterator[NDArray[np.int64]]:
    for file in files:
        with file.open("rb") as stream:
            while content := stream.read(ROW << 20):
                yield np.frombuffer(content, "<i8").reshape(-1, 3)
