"""Photographs and 256-bit codes for the benchmarks of near-duplicates.

Pictures: the photographs of the folder HPCSCALE_SAMPLE (images/*), else those that come with scikit-image.
Codes: uniform random bits, which is what peers like to be measured on; biased ones, many of them equal; and
codes as real ones are: bits drawn with the frequencies and correlations of the PDQ codes of crops of those
photographs.
"""

import io
import os
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from hpcscale import ops

SAMPLE = Path(
    os.environ.get("HPCSCALE_SAMPLE", Path(__file__).resolve().parents[2] / "shared/data/imagenet-sample")
)
PICTURES = 100


def photographs() -> list[bytes]:
    files = sorted((SAMPLE / "images").glob("*"))[:PICTURES]
    if files:
        return [file.read_bytes() for file in files]
    from skimage import data

    jpegs = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        out = io.BytesIO()
        Image.fromarray(getattr(data, name)()).resize((500, 375)).save(out, "JPEG", quality=90)
        jpegs.append(out.getvalue())
    return jpegs


def uniform(random: np.random.Generator, count: int) -> np.ndarray:
    """Codes (count, 4), every bit by a fair coin."""
    return random.integers(0, 2**64, (count, 4), np.uint64)


def lifelike(random: np.random.Generator, count: int, jpegs: list[bytes]) -> np.ndarray:
    """Codes (count, 4) whose bits have the frequencies and correlations of real codes.

    Signs of normal variables whose correlation gives the signs the correlation found (sin(pi/2 x)).
    """
    pictures = [simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0] for jpeg in jpegs]
    real = []
    for picture in pictures:
        for _ in range(60):
            y, x = (random.integers(0, side // 2 + 1) for side in picture.shape)
            real.append(ops.pdq(np.ascontiguousarray(picture[y : y + 200, x : x + 200]))[0])
    bits = np.unpackbits(np.array(real).view(np.uint8), axis=1)
    means = bits.mean(axis=0)
    correlation = np.sin(np.pi / 2 * np.nan_to_num(np.corrcoef(bits.T)))
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)
    spread = np.linalg.norm(root, axis=0)
    sorted_normal = np.sort(random.standard_normal(100_000))
    limits = sorted_normal[((1 - means) * 99_999).astype(int)].astype(np.float32) * spread
    codes = np.empty((count, 32), np.uint8)
    for start in range(0, count, 50_000):
        rows = codes[start : start + 50_000]
        rows[:] = np.packbits(random.standard_normal((len(rows), 256), np.float32) @ root > limits, axis=1)
    return codes.view(np.uint64)


def biased(random: np.random.Generator, count: int) -> np.ndarray:
    """Codes (count, 4) of independent bits, set with shares between 0.15 and 0.85; 3,000 codes are equal."""
    shares = random.uniform(0.15, 0.85, 256).astype(np.float32)
    codes = np.empty((count, 32), np.uint8)
    for start in range(0, count, 50_000):
        rows = codes[start : start + 50_000]
        rows[:] = np.packbits(random.random((len(rows), 256), np.float32) < shares, axis=1)
    codes[:: max(100, count // 3000)] = codes[0]  # 3,000 codes at most: 4.5 million pairs
    return codes.view(np.uint64)
