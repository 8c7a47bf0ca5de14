"""One picture file -> the JPEG bytes that are stored, or the reason why not. Pillow does the work.

In: the bytes of a picture file, from sources.py. Out: JPEG bytes for store.py, or pixels (`upright`) for the
hashes. `store_picture` is what the worker processes of ingest do.

Rules:

- JPEG, PNG, GIF, WebP, BMP, TIFF, PPM/PGM/PBM and AVIF are read; of several frames the first.
- A picture is refused before it is decoded if more than 52.4 million pixels (`MAX_PIXELS`) would have to be
  decoded, or if it has more than 178.9 million pixels or more than 128 MiB: a worker stays under 1 GB.
- The whole picture is decoded, so that truncated or broken pictures are refused here and not in the middle of
  a training run. A JPEG of which libjpeg warns counts as broken; so do too many scans (jpeg.py).
- Without `resize`, a JPEG that is 8-bit RGB or grey and needs no rotation is stored untouched, byte for byte;
  only parts of its header that make decoders fail are taken out.
- Everything else is written anew as a baseline JPEG, 4:2:0, of the given quality, without metadata:
    - the orientation is applied (of the first EXIF block, else of XMP), so that no later step needs to;
    - CMYK, YCCK and palettes become RGB; grey stays grey;
    - of 16-bit values the high byte is kept; 32-bit and float pictures have no agreed range and are refused;
    - transparent pixels lie over white.
- `resize` N gives N x N pixels and does not keep the aspect ratio (Sun et al. 2017 resize to 340 x 340). The
  filter is Pillow's antialiased bilinear one. A JPEG at least 4 times as large is first decoded at 1/2, 1/4
  or 1/8, never below 2 N.
- Colour profiles are ignored.
"""

import errno
import hashlib
import io
import os
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from hpcscale.data.jpeg import SMALLEST, BadPicture, Tidy, decode, dimensions, is_jpeg, tidy
from hpcscale.files import FileError, lasting, open_regular

MAX_PIXELS = 50 << 20  # to be decoded; AVIF with alpha needs the most memory, 17 bytes a pixel
MAX_BYTES = 128 << 20
MAX_SIDE = 65_500  # of a JPEG
NO_FILE = bytes(16)  # instead of the digest of a picture that could not be read
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = tuple(UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")

Result = TypeVar("Result")


class Stored(NamedTuple):
    """The answer of a worker: the bytes to store, or the `reason` why there are none."""

    reason: str
    jpeg: bytes = b""
    jpeg_digest: bytes = b""
    source_size: int = 0
    source_digest: bytes = b""
    size: tuple[int, int] = (0, 0)  # height and width of what is stored, in pixels
    original: tuple[int, int] = (0, 0)  # of the picture before a resize, upright


def encoder() -> str:
    """Versions of the libraries that decide the stored bytes."""
    import PIL

    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"


def transcode(picture: bytes, resize: int | None, quality: int) -> bytes:
    """The JPEG bytes to store for a picture file, by the rules above. Raises BadPicture."""
    return transcode_sized(picture, resize, quality)[0]


def transcode_sized(picture: bytes, resize: int | None, quality: int) -> tuple[bytes, tuple[int, int]]:
    """As `transcode`; and height and width of the picture before the resize, upright. Raises BadPicture."""
    return _opened(picture, lambda image, jpeg: _transcode(image, jpeg, resize, quality))


def upright(picture: bytes) -> Image.Image:
    """The pixels of a picture file, 8-bit grey (L) or RGB, by the rules above. Raises BadPicture."""
    return _opened(picture, _upright)


def cut_out(picture: bytes) -> Image.Image:
    """The pixels of a picture file with transparency, 8-bit RGBA, by the rules above except that transparent
    pixels stay so. Raises BadPicture, also where the file has none."""
    return _opened(picture, _cut_out)


def thumbnail(picture: bytes, side: int, quality: int) -> bytes:
    """A JPEG of at most side x side pixels of a picture file, by the rules above. Raises BadPicture."""
    image = upright(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.info = {}  # comments and profiles would be written out again
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _opened(picture: bytes, work: Callable[[Image.Image, Tidy | None], Result]) -> Result:
    """What `work` makes of the opened picture and, of a JPEG, its tidy bytes. Raises BadPicture."""
    if not picture:
        raise BadPicture("the file is empty")
    try:
        jpeg = tidy(picture) if is_jpeg(picture) else None
        with Image.open(io.BytesIO(jpeg.jpeg if jpeg else picture), formats=FORMATS) as image:
            return work(image, jpeg)
    except (BadPicture, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except UnidentifiedImageError:  # its message holds a memory address, which differs from run to run
        raise BadPicture("not a picture in a known format, or cut within its header") from None
    except Exception as error:  # decoders of damaged files raise almost anything
        message = re.sub(r"<.*? at 0x[0-9a-f]+>", "file", str(error))
        raise BadPicture(f"cannot be decoded: {message or type(error).__name__}") from None


def _transcode(
    image: Image.Image, jpeg: Tidy | None, resize: int | None, quality: int
) -> tuple[bytes, tuple[int, int]]:
    whole = width, height = image.size
    if resize is not None:
        image.draft(None, (2 * resize, 2 * resize))
    if not image.info.get("progressive"):  # libjpeg decodes progressive ones at full size anyway
        width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width} x {height} pixels to decode are more than {MAX_PIXELS:,}")
    if jpeg and jpeg.huffman and resize is None and image.mode in ("RGB", "L") and turn_of(image) is None:
        decode(jpeg.jpeg, "L")  # decoding to grey reads all of it, too
        return jpeg.jpeg, (height, width)
    loaded = _loaded(image, jpeg, whole)
    turn = turn_of(image)
    width, height = whole if jpeg else loaded.size  # TIFFs are turned when they are loaded
    original = (width, height) if turn in ON_ITS_SIDE else (height, width)
    image = _plain(loaded)
    if resize is not None:
        image = image.resize((resize, resize), Image.Resampling.BILINEAR, reducing_gap=3.0)
    elif max(image.size) > MAX_SIDE:
        raise BadPicture(f"{image.width} x {image.height}: no side of a JPEG may exceed {MAX_SIDE}")
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}  # else comments would be written too
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue(), original


def _cut_out(image: Image.Image, jpeg: Tidy | None) -> Image.Image:
    _refuse_large(image)
    if not image.has_transparency_data:
        raise BadPicture("has no transparency, which says what belongs to the object")
    loaded = _loaded(image, jpeg, image.size)
    turn = turn_of(image)
    image = loaded.convert("RGBA")
    return image if turn is None else image.transpose(turn)


def _refuse_large(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadPicture(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")


def _upright(image: Image.Image, jpeg: Tidy | None) -> Image.Image:
    _refuse_large(image)
    loaded = _loaded(image, jpeg, image.size)
    turn = turn_of(image)
    image = _plain(loaded)
    return image if turn is None else image.transpose(turn)


def _loaded(image: Image.Image, jpeg: Tidy | None, whole: tuple[int, int]) -> Image.Image:
    """The decoded picture; smaller than `whole` where `draft` has chosen a scale. Raises BadPicture."""
    reduced = image.size != whole
    if jpeg and image.mode in ("RGB", "L") and (not reduced or max(image.size) >= SMALLEST):
        pixels = decode(jpeg.jpeg, image.mode, image.size if reduced else None)
        return Image.fromarray(pixels[:, :, 0] if image.mode == "L" else pixels)
    if jpeg:
        decode(jpeg.jpeg, image.mode)  # for its warnings
    image.load()
    return image


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """The turn that makes an opened picture upright, by its metadata. The only place that decides this."""
    return UPRIGHT.get(_orientation(image))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the metadata is too damaged to be read."""
    if image.format == "TIFF":  # Pillow turns TIFFs itself
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """8-bit grey (L) or RGB, opaque."""
    if image.mode in ("F", "I") and image.format != "PPM":
        raise BadPicture(f"pixels of mode {image.mode} have no agreed range")
    if image.mode.startswith("I"):  # 16-bit grey; the reader of PPM says I
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    mode = "L" if image.mode in GREY else "RGB"
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    clear = "LA" if mode == "L" else "RGBA"
    image = image if image.mode == clear else image.convert(clear)
    white = Image.new(mode, image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def store_picture(file: str, offset: int, size: int, resize: int | None, quality: int) -> Stored:
    """Read and transcode one picture: `size` bytes at `offset` of `file`; -1: the whole file."""
    try:
        picture = read_picture(file, offset, size)
        jpeg, original = transcode_sized(picture, resize, quality)
        stored_size = dimensions(jpeg)
    except BadPicture as error:
        return Stored(str(error))
    source_digest = digest(picture)
    jpeg_digest = source_digest if jpeg is picture else digest(jpeg)
    return Stored("", jpeg, jpeg_digest, len(picture), source_digest, stored_size, original)


def why_not(file: str, offset: int, size: int, resize: int | None, quality: int) -> str:
    """The reason why `store_picture` has nothing to store; "" if it has something."""
    return store_picture(file, offset, size, resize, quality).reason


def digest_stored(file: str, offset: int, size: int) -> bytes:
    """The digest of one picture file as it is, or `NO_FILE` where it cannot be read."""
    try:
        return digest(read_picture(file, offset, size))
    except BadPicture:
        return NO_FILE


def read_picture(file: str, offset: int, size: int) -> bytes:
    """`size` bytes at `offset` of `file`; -1: the whole file.

    Raises BadPicture for errors that would come again, OSError for those that may pass (a stale mount).
    """
    try:
        return _read(file, offset, size)
    except OSError as error:
        if not lasting(error) and error.errno != errno.EIO:  # EIO: the disk is bad
            raise
        raise BadPicture(f"cannot be read: {error.strerror}") from None


def _read(file: str, offset: int, size: int) -> bytes:
    try:
        stream = open_regular(file)
    except FileError:
        raise BadPicture("not a regular file") from None
    with stream:
        if size < 0:
            size = os.fstat(stream.fileno()).st_size
        if size > MAX_BYTES:
            raise BadPicture(f"{size:,} bytes are more than {MAX_BYTES:,}")
        picture = os.pread(stream.fileno(), size, offset)
        while len(picture) < size and (
            more := os.pread(stream.fileno(), size - len(picture), offset + len(picture))
        ):
            picture += more
    if len(picture) < size:
        raise BadPicture(f"its file ends after {len(picture):,} of {size:,} bytes")
    return picture


def digest(content: bytes) -> bytes:
    """BLAKE2b of 16 bytes, as data.manifest.digest; workers do not import that, because pydantic is slow."""
    return hashlib.blake2b(content, digest_size=16).digest()
