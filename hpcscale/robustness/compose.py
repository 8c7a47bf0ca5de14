"""Objects out of their context: each of some objects, cut out, pasted on each of some backgrounds
(Kolesnikov et al. 2020, supplement F).

In: parts (parts.py), their attributions, and `Settings`. Out: a folder with

    pictures/FOREGROUND/BACKGROUND.jpg   by the names of the parts, without their endings
    manifest.jsonl      a line a picture, which `data ingest` reads (composition.py)
    attributions.csv    both parts of each picture, and their licences (attributions.py)
    composition.json    what it was made of and how; the first file of the folder

The background is cut to its largest square. The object is resized, so that its longer side is a share of
the square's, by Pillow's antialiased bilinear filter on colours multiplied by alpha: it never overshoots, and
the colour of transparent pixels does not darken the edges. It is laid over the square by its alpha, always
wholly inside.

The folder is a pure function of parts and settings. After a kill the same call goes on with the pictures that
are missing; files that it did not write are never replaced.
"""

import io
import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image, UnidentifiedImageError

from hpcscale.data.manifest import digest
from hpcscale.data.parts import locked
from hpcscale.files import (
    OutputError,
    Usage,
    check_output,
    marked,
    read_bytes,
    read_json,
    remove_asides,
    write_file,
    write_new,
)
from hpcscale.ingest.transcode import MAX_BYTES, encoder, upright
from hpcscale.progress import Progress, none
from hpcscale.robustness import attributions, parts
from hpcscale.robustness.composition import MANIFEST, PICTURES, Picture, write_lines
from hpcscale.robustness.parts import Part

PLAN = "composition.json"
MARK = '{"writer": "hpcscale robustness compose", "format": 1,'
ENDINGS = {"jpeg": "jpg", "png": "png"}
# Of the room around the object, in halves: to the left of it, above it.
POSITIONS = {
    "centre": (1, 1), "top-left": (0, 0), "top": (1, 0), "top-right": (2, 0), "left": (0, 1), "right": (2, 1),
    "bottom-left": (0, 2), "bottom": (1, 2), "bottom-right": (2, 2),
}  # fmt: skip
RANDOM = "random"
QUALITY = 95  # of JPEGs


class Settings(NamedTuple):
    """How pictures are composed."""

    share: float = 0.8  # longer side of the object / side of the square, over 0, up to 1
    cut: Literal["top-left", "centre"] = "top-left"  # where in the background its largest square lies
    size: int | None = None  # squares are resized to so many pixels; None: as large as they are
    position: str = "centre"  # one of POSITIONS, or RANDOM
    seed: int = 0  # of random positions
    format: Literal["jpeg", "png"] = "jpeg"


AS_THE_PAPER = Settings()


class Box(NamedTuple):
    """Where an object lies, pixels."""

    left: int
    top: int
    width: int
    height: int


class Composed(NamedTuple):
    pictures: int
    foregrounds: int
    classes: int
    backgrounds: int


class Attributed(NamedTuple):
    """Where attributions are; None: in the folder of the pictures."""

    foregrounds: Path | None = None
    backgrounds: Path | None = None
    needed: bool = True


BESIDE = Attributed()


def compose(
    foregrounds: Path,
    backgrounds: Path,
    out: Path,
    settings: Settings = AS_THE_PAPER,
    attributed: Attributed = BESIDE,
    progress: Progress = none,
) -> Composed:
    """Write the folder `out`: as many pictures as there are pairs of a foreground and a background.

    Raises Usage, FileError of parts and attributions before anything is written, OutputError where `out`
    holds other files or was begun otherwise, and Busy.
    """
    _check(settings)
    _check_folder(out, [foregrounds, backgrounds])
    objects = parts.find_foregrounds(foregrounds, progress)
    behind = parts.find_backgrounds(backgrounds, progress)
    names = [[part.name for part in each] for each in (objects, behind)]
    of_objects = attributions.of_parts(names[0], foregrounds, attributed.foregrounds, attributed.needed)
    of_behind = attributions.of_parts(names[1], backgrounds, attributed.backgrounds, attributed.needed)
    planned = _planned(objects, behind, settings)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, None):
        _begin(out, _plan(objects, behind, settings))
        pictures = []
        for index, part in enumerate(objects):
            mine = planned[index * len(behind) : (index + 1) * len(behind)]
            pictures += _on_each(out, part, behind, mine, settings)
            progress("compose", len(pictures), len(planned))
        of_each = ((one.image, one.foreground, one.background) for one in pictures)
        text = attributions.text(of_each, of_objects, of_behind)
        write_new(out / attributions.FILE, text.encode("utf-8", "backslashreplace"))
        write_new(out / MANIFEST, write_lines(pictures))
    return Composed(len(pictures), len(objects), len({part.of for part in objects}), len(behind))


def place(size: tuple[int, int], side: int, settings: Settings, key: Sequence[str] = ()) -> Box:
    """Where an object of `size` (width, height) lies on a square of `side` pixels. key: the names of the
    parts, of which random positions are a function, with the seed. Half pixels are rounded down."""
    longer = max(1, round(settings.share * side))
    width, height = (max(1, round(length * longer / max(size))) for length in size)
    rooms = side - width, side - height
    if settings.position == RANDOM:
        text = json.dumps([settings.seed, *key])
        drawn = blake2b(text.encode(), digest_size=16).digest()
        left, top = (
            int.from_bytes(part) % (room + 1)
            for part, room in zip((drawn[:8], drawn[8:]), rooms, strict=True)
        )
        return Box(left, top, width, height)
    halves = POSITIONS[settings.position]
    left, top = (room * half // 2 for room, half in zip(rooms, halves, strict=True))
    return Box(left, top, width, height)


def square_of(background: Image.Image, settings: Settings) -> Image.Image:
    """The largest square of an upright background, RGB, resized to `size` where that is set."""
    side = min(background.size)
    rooms = (length - side for length in background.size)
    left, top = (room // 2 if settings.cut == "centre" else 0 for room in rooms)
    square = background.convert("RGB").crop((left, top, left + side, top + side))
    if settings.size in (None, side):
        return square
    return square.resize((settings.size, settings.size), Image.Resampling.BILINEAR)


def paste(cut: Image.Image, square: Image.Image, box: Box) -> Image.Image:
    """The square with an object (RGBA), resized to the box, laid over it. Where the object's alpha is 0,
    pixels are those of the square."""
    size = (box.width, box.height)
    # Pillow multiplies RGBA by alpha before it resizes, and divides after.
    resized = cut if cut.size == size else cut.resize(size, Image.Resampling.BILINEAR)
    picture = square.copy()
    picture.paste(resized, (box.left, box.top), resized)
    return picture


def _check(settings: Settings) -> None:
    if not 0 < settings.share <= 1:
        raise Usage(f"share: over 0, up to 1, found {settings.share}")
    if settings.position not in (*POSITIONS, RANDOM):
        raise Usage(f"position: one of {', '.join((*POSITIONS, RANDOM))}, found {settings.position!r:.80}")


def _check_folder(out: Path, inputs: Sequence[Path]) -> None:
    """Raises OutputError where `out` is not empty and was not begun by us."""
    check_output(out / PLAN, inputs, marked(MARK.encode()))
    names = os.listdir(out) if out.is_dir() else []
    strangers = sorted(name for name in names if name != ".lock" and not name.endswith(".tmp"))
    if strangers and PLAN not in strangers:
        raise OutputError(
            f"{out / strangers[0]}: is there already, and {out} holds no composed pictures; choose another"
        )


def _plan(objects: list[Part], behind: list[Part], settings: Settings) -> dict[str, Any]:
    return {
        "settings": settings._asdict(),
        "encoder": encoder(),
        "foregrounds": [[part.name, part.of, part.digest] for part in objects],
        "backgrounds": [[part.name, part.digest] for part in behind],
    }


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or compare it with that of the call that began."""
    file = out / PLAN
    for name in (PLAN, attributions.FILE, MANIFEST):
        remove_asides(out / name)
    if not file.exists() or not file.stat().st_size:
        write_file(file, f"{MARK}{json.dumps(plan, indent=1)[1:]}\n".encode())
        return
    begun = read_json(file)
    if others := [key for key, value in plan.items() if begun.get(key) != value]:
        raise OutputError(
            f"{out}: was begun with other {', '.join(others)}; use the same as then, or choose another folder"
        )


def _planned(objects: list[Part], behind: list[Part], settings: Settings) -> list[str]:
    """The names of the pictures. Raises Usage where two parts differ in the ending alone."""
    ending = ENDINGS[settings.format]
    names = [
        f"{PICTURES}/{os.path.splitext(one.name)[0]}/{os.path.splitext(other.name)[0]}.{ending}"
        for one in objects
        for other in behind
    ]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Usage(
                f"two pictures would be {name!r:.200}: parts need names that differ before the ending"
            )
        seen.add(name)
    return names


def _on_each(
    out: Path, part: Part, behind: list[Part], names: list[str], settings: Settings
) -> list[Picture]:
    """One object on each background: the pictures that are there, or else are written now."""
    cut = None
    pictures = []
    for background, name in zip(behind, names, strict=True):
        side = settings.size or min(background.size)
        box = place(part.size, side, settings, (part.name, background.name))
        file = out / name
        if file.exists():
            content = _written(file, side, settings)
        else:
            cut = cut or parts.object_in(parts.read_part(part))
            square = square_of(upright(parts.read_part(background)), settings)
            content = _encoded(paste(cut, square, box), settings)
            remove_asides(file)
            write_file(file, content)
        pictures.append(
            Picture(name, part.of, part.name, background.name, side, tuple(box), digest(content).hex())
        )
    return pictures


def _written(file: Path, side: int, settings: Settings) -> bytes:
    """A picture that an earlier call wrote. Raises OutputError where it cannot be one."""
    content = read_bytes(file, MAX_BYTES)
    try:
        with Image.open(io.BytesIO(content), formats=[settings.format.upper()]) as image:
            size = image.size
    except (UnidentifiedImageError, OSError):
        size = (0, 0)
    if size != (side, side):
        raise OutputError(f"{file}: is there already, and not what this command writes; remove it")
    return content


def _encoded(picture: Image.Image, settings: Settings) -> bytes:
    out = io.BytesIO()
    if settings.format == "png":
        picture.save(out, "PNG")
    else:
        picture.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return out.getvalue()
