"""One picture file -> its perceptual hash. What the worker processes of hashes.py do; imports neither h5py
nor torch.

In: bytes of a picture file. Out: code and quality, or the reason why not. The rules are ingest's
(ingest/transcode.py): orientation applied, 16-bit values to their high byte, what is transparent over
white, the first of several frames, at most 52.4 million pixels, and what is truncated or broken refused.

JPEGs are decoded by libjpeg-turbo straight to grey at full size: the Y that is in the file already, which
saves the colours' transform and upsampling. The hash of that differs from the hash of Pillow's RGB by
rounding alone: of 256 bits of PDQ at most 4 on 500 photographs, of 64 at most 2. (Decoding at a reduced scale
saves a tenth of the time, since most of it is entropy decoding, and costs 10 to 30 bits.) What libjpeg-turbo
does not take as it stands (CMYK, a picture to be turned, another format) goes through Pillow.
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

# Of each method; a new one where codes change. 1 did not turn JPEGs by XMP, nor by EXIF far into the file.
VERSIONS = {"pdq": 2, "phash": 2, "dhash": 2}
NO_MEASURE = 100  # quality of methods that have none


class Hashed(NamedTuple):
    """What a worker answers; `reason` says why there is no code."""

    reason: str
    code: bytes = b""  # the words, little-endian
    quality: int = 0
    digest: bytes = NO_FILE  # of the picture file


def decoder() -> str:
    """Versions of what turns files into pixels."""
    return f"simplejpeg {simplejpeg.__version__}, {encoder()}"


def hash_stored(file: str, offset: int, size: int, method: str) -> Hashed:
    """Hash one picture: `size` bytes at `offset` of `file`, or with -1 the whole file. OSError: try again."""
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
    pixels = grey_or_rgb(picture)
    if method == "pdq":
        return ops.pdq(pixels)
    if pixels.ndim == 3:  # as imagehash does it
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    code = ops.phash(pixels) if method == "phash" else ops.dhash(pixels)
    return np.array([code], np.uint64), NO_MEASURE


def grey_or_rgb(picture: bytes) -> NDArray[np.uint8]:
    """Pixels (height, width) of a JPEG or grey picture, else (height, width, 3). Raises BadPicture."""
    if is_jpeg(picture):
        jpeg = tidy(picture)
        if not (jpeg.app1 and _turned(jpeg.jpeg)):
            try:
                height, width = simplejpeg.decode_jpeg_header(jpeg.jpeg)[:2]
                if height * width <= MAX_PIXELS:
                    return np.asarray(simplejpeg.decode_jpeg(jpeg.jpeg, "GRAY"))[:, :, 0]
            except ValueError:  # Pillow says whether it is a picture, and if not, why
                pass
    return np.asarray(upright(picture))


def _turned(jpeg: bytes) -> bool:
    """Whether there is an orientation that matters."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return turn_of(image) is not None
    except Exception:  # no picture; `upright` says so
        return False
