"""One picture file -> its perceptual hash. The worker processes of hashes.py do this.

Imports neither h5py nor torch, so that workers start fast.

In: bytes of a picture file. Out: code and quality, or the reason why not. The rules are those of ingest
(ingest/transcode.py): orientation applied, the high byte of 16-bit values, transparent pixels over white, the
first of several frames, at most 52.4 million pixels, and truncated or broken pictures refused.

PDQ of an ordinary JPEG comes from the coefficients in the file (`ops.pdq_jpeg`), no pixel is computed. Other
JPEGs, those with a side below 257, and JPEGs for the other hashes are decoded by libjpeg-turbo straight to
grey at full size: the file holds that grey (Y) already, so upsampling and transforming the colours is saved.
On 500 photographs, PDQ differs from pdqhash on Pillow's RGB by at most 6 of 256 bits, the others from
imagehash by at most 2 of 64. (Of pictures decoded at 1/2, it differs by up to 38.) CMYK,
pictures to be turned and other formats go through Pillow.
"""

import io
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from hpcscale import ops
from hpcscale.data.jpeg import BadPicture, is_jpeg, tidy
from hpcscale.ingest.transcode import MAX_PIXELS, NO_FILE, digest, encoder, read_picture, turn_of, upright

# Of each method; raised when codes change. 1 did not turn JPEGs by XMP, nor by EXIF far into the file. 2 took
# PDQ from pixels always.
VERSIONS = {"pdq": 3, "phash": 2, "dhash": 2}
NO_MEASURE = 100  # quality of methods that have none


class Hashed(NamedTuple):
    """The answer of a worker; `reason` says why there is no code."""

    reason: str
    code: bytes = b""  # the words, little-endian
    quality: int = 0
    digest: bytes = NO_FILE  # of the picture file


def decoder() -> str:
    """Versions of what turns files into pixels."""
    return f"simplejpeg {simplejpeg.__version__}, {encoder()}"


def hash_stored(file: str, offset: int, size: int, method: str) -> Hashed:
    """Hash one picture: `size` bytes at `offset` of `file`; -1: the whole file. After OSError, try again."""
    of_file = NO_FILE
    try:
        picture = read_picture(file, offset, size)
        of_file = digest(picture)
        code, quality = hash_picture(picture, method)
    except BadPicture as error:
        return Hashed(str(error), digest=of_file)
    return Hashed("", code.astype("<u8", copy=False).tobytes(), quality, of_file)


def hash_picture(picture: bytes, method: str) -> tuple[NDArray[np.uint64], int]:
    """Code (words,) and quality of a picture file. Raises BadPicture."""
    jpeg = _upright_jpeg(picture)
    if jpeg is not None and method == "pdq":
        found = ops.pdq_jpeg(np.frombuffer(jpeg, np.uint8))
        if found is not None:
            return found
    pixels = _pixels(picture, jpeg)
    if method == "pdq":
        return ops.pdq(pixels)
    if pixels.ndim == 3:  # as imagehash does it
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    code = ops.phash(pixels) if method == "phash" else ops.dhash(pixels)
    return np.array([code], np.uint64), NO_MEASURE


def grey_or_rgb(picture: bytes) -> NDArray[np.uint8]:
    """Pixels (height, width) of a JPEG or grey picture, else (height, width, 3). Raises BadPicture."""
    return _pixels(picture, _upright_jpeg(picture))


def _upright_jpeg(picture: bytes) -> bytes | None:
    """Its tidy bytes, if it is a JPEG that need not be turned. Raises BadPicture."""
    if not is_jpeg(picture):
        return None
    jpeg = tidy(picture)
    return None if jpeg.app1 and _turned(jpeg.jpeg) else jpeg.jpeg


def _pixels(picture: bytes, upright_jpeg: bytes | None) -> NDArray[np.uint8]:
    if upright_jpeg is not None:
        try:
            height, width = simplejpeg.decode_jpeg_header(upright_jpeg)[:2]
            if height * width <= MAX_PIXELS:
                return np.asarray(simplejpeg.decode_jpeg(upright_jpeg, "GRAY"))[:, :, 0]
        except ValueError:  # Pillow says whether it is a picture, and if not, why
            pass
    return np.asarray(upright(picture))


def _turned(jpeg: bytes) -> bool:
    """Whether the picture has to be turned or mirrored."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return turn_of(image) is not None
    except Exception:  # not a picture; `upright` will say so
        return False
