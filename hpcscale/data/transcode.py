"""One picture file -> the JPEG bytes that are stored, or the reason why not. Pillow does the work.

In: the bytes of a picture file, from sources.py. Out: JPEG bytes for store.py, or pixels (`upright`) for the
hashes. `store_picture` is what the worker processes of ingest do.

Rules:
- JPEG, PNG, GIF, WebP, BMP, TIFF, PPM/PGM/PBM and AVIF are read; of several frames the first.
- A picture of which more than 52.4 million pixels (`MAX_PIXELS`) would have to be decoded, of more than 178.9
  million pixels or of more than 128 MiB is refused before it is decoded: a worker stays under 1 GB.
- The whole picture is decoded, so what is truncated or broken is refused here and not in the middle of a
  training run.
- Without `resize`, a JPEG that is 8-bit RGB or grey and needs no rotation is stored untouched, byte for byte.
- Everything else is written anew as a baseline JPEG, 4:2:0, of the given quality, without metadata:
  the EXIF orientation is applied; CMYK and YCCK become RGB; palettes become RGB; of 16-bit values the high
  byte is kept (32-bit and float pictures have no agreed range and are refused); what is transparent lies over
  white; grey stays grey.
- `resize` N gives N x N pixels, not keeping the aspect ratio (Sun et al. 2017 resize to 340 x 340), with
  Pillow's antialiased bilinear filter. A JPEG at least 4 times as large is decoded at 1/2, 1/4 or 1/8 first,
  never below 2 N.
- Colour profiles are ignored.
"""

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError, features

MAX_PIXELS = 50 << 20  # to be decoded; the hungriest decoder (AVIF with alpha) takes 17 bytes a pixel
MAX_BYTES = 128 << 20
MAX_SIDE = 65_500  # of a JPEG
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
GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")
# Errors of reading that will not pass; any other (a stale mount) ends the ingest, which can be resumed.
LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
           errno.ELOOP, errno.EIO, errno.ENXIO)  # fmt: skip


Result = TypeVar("Result")


class BadPicture(ValueError):
    """A picture that cannot be used; the message is the reason."""


class Stored(NamedTuple):
    """What a worker answers: the stored bytes, or `reason` why there are none."""

    reason: str
    jpeg: bytes = b""
    jpeg_digest: bytes = b""
    source_size: int = 0
    source_digest: bytes = b""


def encoder() -> str:
    """Versions of what decides the stored bytes."""
    import PIL

    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"


def transcode(picture: bytes, resize: int | None, quality: int) -> bytes:
    """The JPEG bytes to store for a picture file, by the rules above. Raises BadPicture."""
    return _opened(picture, lambda image: _transcode(image, picture, resize, quality))


def upright(picture: bytes) -> Image.Image:
    """The pixels of a picture file, 8-bit grey (L) or RGB, by the rules above. Raises BadPicture."""
    return _opened(picture, _upright)


def _opened(picture: bytes, work: Callable[[Image.Image], Result]) -> Result:
    """What `work` makes of the opened picture. Raises BadPicture."""
    if not picture:
        raise BadPicture("the file is empty")
    try:
        with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
            return work(image)
    except (BadPicture, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except UnidentifiedImageError:  # its message holds an address, which differs from run to run
        raise BadPicture("not a picture in a known format, or cut within its header") from None
    except Exception as error:  # decoders of damaged files raise almost anything
        message = re.sub(r"<.*? at 0x[0-9a-f]+>", "file", str(error))
        raise BadPicture(f"cannot be decoded: {message or type(error).__name__}") from None


def _transcode(image: Image.Image, picture: bytes, resize: int | None, quality: int) -> bytes:
    width, height = image.size
    if resize is not None:
        image.draft(None, (2 * resize, 2 * resize))
    if not image.info.get("progressive"):  # which libjpeg decodes at full size, whatever is asked for
        width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width} x {height} pixels to decode are more than {MAX_PIXELS:,}")
    image.load()
    turn = UPRIGHT.get(_orientation(image))
    if resize is None and image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and turn is None:
        return picture
    image = _plain(image)
    if resize is not None:
        image = image.resize((resize, resize), Image.Resampling.BILINEAR, reducing_gap=3.0)
    elif max(image.size) > MAX_SIDE:
        raise BadPicture(f"{image.width} x {image.height}: no side of a JPEG may exceed {MAX_SIDE}")
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}  # comments would be written out again
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise BadPicture(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
    image.load()
    turn = UPRIGHT.get(_orientation(image))
    image = _plain(image)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; metadata too damaged to be read says nothing."""
    if image.format == "TIFF":  # Pillow turns these upright itself
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """8-bit grey (L) or RGB, opaque."""
    if image.mode in ("F", "I") and image.format != "PPM":
        raise BadPicture(f"pixels of mode {image.mode} have no agreed range")
    if image.mode.startswith("I"):  # 16-bit grey; PPM's reader calls it I
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
    """Read and transcode one picture: `size` bytes at `offset` of `file`, or with -1 the whole file."""
    try:
        picture = read_picture(file, offset, size)
        jpeg = transcode(picture, resize, quality)
    except BadPicture as error:
        return Stored(str(error))
    source_digest = _digest(picture)
    return Stored("", jpeg, source_digest if jpeg is picture else _digest(jpeg), len(picture), source_digest)


def read_picture(file: str, offset: int, size: int) -> bytes:
    """`size` bytes at `offset` of `file`, or with -1 the whole file.

    Raises BadPicture for what will not pass, OSError for what may (a stale mount).
    """
    try:
        return _read(file, offset, size)
    except OSError as error:
        if error.errno not in LASTING:
            raise
        raise BadPicture(f"cannot be read: {error.strerror}") from None


def _read(file: str, offset: int, size: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # else opening a named pipe waits for a writer
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadPicture("not a regular file")
        if size < 0:
            size = found.st_size
        if size > MAX_BYTES:
            raise BadPicture(f"{size:,} bytes are more than {MAX_BYTES:,}")
        picture = os.pread(descriptor, size, offset)
        while len(picture) < size and (
            more := os.pread(descriptor, size - len(picture), offset + len(picture))
        ):
            picture += more
    finally:
        os.close(descriptor)
    if len(picture) < size:
        raise BadPicture(f"its file ends after {len(picture):,} of {size:,} bytes")
    return picture


def _digest(content: bytes) -> bytes:
    """As store.digest, which a worker does not import, for h5py's sake."""
    return hashlib.blake2b(content, digest_size=16).digest()
