"""`PAIRS.json`, which `dedup search` writes beside a pairs file: which pictures the names in it mean.

Names do not identify pictures, and the lines of a pairs file have no room for more. One JSON object:

    writer   "hpcscale"
    sha256   of the pairs file, as search wrote it
    a, b     {name: BLAKE2b-128 of the original picture file, in hexadecimal} of the pictures in the column;
             a name that several pictures have stands there several times. b is null if the pairs were found
             within one file of hashes; then a has both columns.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from hpcscale.files import FileError, parse_json, read_bytes, remove_asides, replacing

MARK = '{"writer": "hpcscale", "sha256": '  # how these files begin
Pictures = dict[str, tuple[str, ...]]  # name -> digests of the pictures that have it


class Origin(NamedTuple):
    sha256: str
    a: Pictures
    b: Pictures  # equal to a if there is only one file of hashes


def beside(pairs: Path) -> Path:
    return pairs.with_name(pairs.name + ".json")


def write(
    pairs: Path,
    content: Path,
    a: Iterable[tuple[str, bytes]],
    b: Iterable[tuple[str, bytes]] | None,
) -> None:
    """Write `PAIRS.json`. content: the file that will become `pairs`. a, b: names and digests."""
    file = beside(pairs)
    remove_asides(file)
    with content.open("rb") as lines:
        sha256 = hashlib.file_digest(lines, "sha256").hexdigest()
    with replacing(file) as temporary, temporary.open("w", encoding="ascii") as stream:
        stream.write(f'{MARK}"{sha256}",\n"a": ')
        _write_column(stream, a)
        stream.write(',\n"b": ')
        _write_column(stream, b)
        stream.write("}\n")


def _write_column(stream: IO[str], pictures: Iterable[tuple[str, bytes]] | None) -> None:
    if pictures is None:
        stream.write("null")
        return
    stream.write("{")
    for number, (name, digest) in enumerate(pictures):
        stream.write(f'{"," * (number > 0)}\n{json.dumps(name)}: "{digest.hex()}"')
    stream.write("}")


def read(pairs: Path) -> Origin:
    """Read `PAIRS.json`. Raises FileError and OSError."""
    file = beside(pairs)
    found = parse_json(read_bytes(file), file, _grouped)
    if not isinstance(found, dict) or not isinstance(found.get("sha256"), str) or "b" not in found:
        raise FileError(f"{file}: expected an object with sha256, a and b")
    a = _column(file, "a", found.get("a"))
    return Origin(found["sha256"], a, a if found["b"] is None else _column(file, "b", found["b"]))


def _grouped(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a JSON object that keeps all digests of a name that comes several times."""
    found: dict[str, Any] = {}
    for key, value in items:
        if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
            before = found.get(key)
            found[key] = (*(before if isinstance(before, tuple) else ()), value)
        else:
            found[key] = value
    return found


def _column(file: Path, key: str, pictures: Any) -> Pictures:
    if not isinstance(pictures, dict):
        raise FileError(f"{file}: '{key}' must be an object of digests, found {pictures!r:.80}")
    for name, digests in pictures.items():
        if not isinstance(digests, tuple):
            raise FileError(f"{file}: {key}: {name!r:.80} must have a digest, found {digests!r:.80}")
    return pictures
