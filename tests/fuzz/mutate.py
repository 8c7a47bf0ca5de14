"""Good content in, bad content out: bytes, lines of text, JSON values. All by a random.Random."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

# Values that have broken programs: types, ends of ranges, text that is hard to show or to write.
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**20, -(2**63) - 1, 0.5, -0.5, 1e308, -1e-308,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "1.5", "nan", "inf", "true", "null", "\n",
    "\u2028", "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "\x7f", "\ud800", "\udcff", "é", "e\u0301", "🦊\ufe0f",
    "../../etc/passwd", "/", "/dev/null", "/dev/zero", "-", "--help", "$HOME", "$ave 50% now$", "`id`",
    "%s%n", "=1+1", "<b>x</b>", "|", "\t", "a\tb", "a\nb", '"', "'", "\\", "\\x", "C:\\x", "x" * 300,
    "y" * 5000, "*", "[", "{", [], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, [1, "a"], "~", "~root/x",
    "file:///x", "\u202etxt.exe",
)  # fmt: skip
LONG = ("9" * 400, "9" * 5000, "z" * 200_000)
# What an option or a key is given as text.
WORDS = tuple(
    dict.fromkeys(
        [value for value in HOSTILE if isinstance(value, str) and "\x00" not in value]
        + [
            "0",
            "1",
            "-1",
            "3",
            "1e9",
            "1e400",
            "-0",
            "+1",
            "0x10",
            "1_000",
            "10000000000000000000000",
            "inf",
            "-inf",
            "nan",
            "NaN",
            "true",
            "false",
            "None",
        ]
        + ["9" * 5000, "1.0", "[]", "{}", "[1]", "{a=1}", "1\n2", "1 ", " 1", "١٢", "1e-400", ".5", "5."]
    )
)


def data(random: Random, content: bytes) -> bytes:
    """Flipped, cut, lengthened, zeroed, doubled, or replaced."""
    kinds: list[Callable[[Random, bytes], bytes]] = [_flip, _flip, _flip, _cut, _junk, _zero, _swap, _other]
    return random.choice(kinds)(random, content)


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 8, 64)) if changed else 0):
        changed[random.randrange(len(changed))] ^= random.choice((1, 2, 128, 255, random.randrange(1, 256)))
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _junk(random: Random, content: bytes) -> bytes:
    at = random.choice((0, len(content), random.randrange(len(content) + 1)))
    return content[:at] + random.randbytes(random.choice((1, 16, 1000))) + content[at:]


def _zero(random: Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    length = min(random.choice((1, 8, 100, 4096)), len(content) - at)
    return content[:at] + bytes([random.choice((0, 255))]) * length + content[at + length :]


def _swap(random: Random, content: bytes) -> bytes:
    a, b = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return content[b:] + content[a:b] + content[:a]


def _other(random: Random, content: bytes) -> bytes:
    known = (b"", b"\0", b"\n", b"\xff\xfe", b"{}", b"[]", b"null", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n")
    return random.choice((*known, random.randbytes(200), b"[" * 100_000, content + content))


def text(random: Random, content: str) -> bytes:
    """Lines lost, doubled, exchanged, joined, with other ends, in another encoding, or with odd letters."""
    lines = content.split("\n")
    at = random.randrange(len(lines))
    kind = random.randrange(10)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        random.shuffle(lines)
    elif kind == 3:
        return content.replace("\n", random.choice(("\r\n", "\r", "\0", "\u2028"))).encode()
    elif kind == 4:
        return content.encode(random.choice(("utf-16", "utf-32", "utf-8-sig")))
    elif kind == 5:
        lines[at] += random.choice([word for word in HOSTILE if isinstance(word, str)])
    elif kind == 6:
        place = random.randrange(len(lines[at]) + 1)
        lines[at] = lines[at][:place] + str(random.choice(HOSTILE)) + lines[at][place:]
    elif kind == 7:
        lines[at] = str(random.choice(HOSTILE)) * random.choice((1, 1, 200))
    elif kind == 8:
        between = next((letter for letter in "\t, " if letter in lines[at]), ",")
        cells = lines[at].split(between)
        cells[random.randrange(len(cells))] = str(random.choice((*HOSTILE, *LONG)))
        lines[at] = between.join(cells)
    else:
        return data(random, content.encode())
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def value(random: Random, found: Any) -> Any:
    """A JSON value with one thing wrong, somewhere in it."""
    if isinstance(found, dict) and found and random.random() < 0.8:
        key = random.choice(list(found))
        kind = random.randrange(8)
        if kind == 0:
            return {name: each for name, each in found.items() if name != key}
        if kind == 1:
            return found | {str(random.choice(HOSTILE)): random.choice(HOSTILE)}
        return found | {key: value(random, found[key])}
    if isinstance(found, list) and found and random.random() < 0.8:
        at = random.randrange(len(found))
        kind = random.randrange(8)
        if kind == 0:
            return found[:at] + found[at + 1 :]
        if kind == 1:
            return [*found[:at], found[at], *found[at:]]
        return [*found[:at], value(random, found[at]), *found[at + 1 :]]
    if isinstance(found, int | float) and random.random() < 0.5:
        return random.choice((found + 1, found - 1, -found, str(found), float(found), found * 10, 10**400))
    if isinstance(found, str) and random.random() < 0.3:
        return random.choice((found + "x", found[:-1], found.upper(), [found], found * 2))
    return random.choice(HOSTILE)


def document(random: Random, content: str) -> bytes:
    """A JSON document, or one a line, with something wrong."""
    if random.random() < 0.25:
        return text(random, content)
    try:
        whole = json.dumps(value(random, json.loads(content)))
    except RecursionError:  # it was made deep before
        return text(random, content)
    except ValueError:
        lines = content.splitlines()
        at = random.randrange(len(lines))
        try:
            lines[at] = json.dumps(value(random, json.loads(lines[at])))
        except RecursionError:
            return text(random, content)
        whole = "\n".join(lines) + "\n"
    if random.random() < 0.1:
        deep = random.choice(("[" * 5000 + "]" * 5000, "9" * 5000, '{"a":' * 2000 + "1" + "}" * 2000))
        whole = whole.replace(random.choice(("1", "[", '"')), deep, 1)
    return whole.encode()
