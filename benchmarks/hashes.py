"""Perceptual hashes of photographs, from pixels and from JPEGs, beside the peers.

What is hashed: the photographs of benchmarks/codes.py.
"""

import io
from collections.abc import Callable
from functools import partial

import imagehash
import numpy as np
import pdqhash
import simplejpeg
from PIL import Image

from benchmarks.codes import photographs
from benchmarks.harness import interleave, table
from hpcscale import ops
from hpcscale.dedup.perceptual import grey_or_rgb, hash_picture


def run() -> str:
    jpegs = photographs()
    again = []
    for jpeg in jpegs:
        out = io.BytesIO()
        Image.fromarray(simplejpeg.decode_jpeg(jpeg, "RGB")).save(out, "JPEG", quality=90)
        again.append(out.getvalue())
    wholes = [whole("as they come", jpegs), whole("encoded again at quality 90", again)]
    return "\n".join([of_pixels(jpegs), *wholes, resampling(jpegs)])


def of_pixels(jpegs: list[bytes]) -> str:
    rgb = [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in jpegs]
    grey = [np.ascontiguousarray(picture[..., 1]) for picture in rgb]
    images = [Image.fromarray(picture) for picture in rgb]
    decoded = interleave(
        {
            "hpcscale pdq from RGB": lambda: [ops.pdq(picture) for picture in rgb],
            "hpcscale pdq from grey": lambda: [ops.pdq(picture) for picture in grey],
            "hpcscale pdq_dihedral from RGB": lambda: [ops.pdq_dihedral(picture) for picture in rgb],
            "pdqhash": lambda: [pdqhash.compute(picture) for picture in rgb],
            "hpcscale phash": lambda: [ops.phash(picture) for picture in grey],
            "imagehash phash": lambda: [imagehash.phash(image) for image in images],
            "hpcscale dhash": lambda: [ops.dhash(picture) for picture in grey],
            "imagehash dhash": lambda: [imagehash.dhash(image) for image in images],
        },
        len(jpegs),
        repeats=5,
    )
    core = {rate.name: rate.per_core for rate in decoded}
    notes = [
        f"{len(jpegs)} pictures of {np.mean([p[..., 0].size for p in rgb]) / 1e3:.0f} thousand pixels",
        f"wanted 6 x pdqhash: {core['hpcscale pdq from RGB'] / core['pdqhash']:.1f} x",
        f"phash {core['hpcscale phash'] / core['imagehash phash']:.1f} x and "
        f"dhash {core['hpcscale dhash'] / core['imagehash dhash']:.1f} x imagehash",
    ]
    return table("Hash of a decoded picture", "pictures", decoded, notes)


def whole(kind: str, jpegs: list[bytes]) -> str:
    """From JPEG to hash."""

    def grey() -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, "GRAY")

    def rgb() -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, "RGB")

    functions: dict[str, Callable[[], object]] = {
        "hpcscale pdq of the file": lambda: [hash_picture(jpeg, "pdq") for jpeg in jpegs],
        "hpcscale pdq, grey decode by simplejpeg": lambda: [
            ops.pdq(simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0]) for jpeg in jpegs
        ],
        "limit: grey decode alone": grey,
        "limit: RGB decode alone": rgb,
        "pdqhash, RGB decode by simplejpeg": lambda: [
            pdqhash.compute(simplejpeg.decode_jpeg(jpeg, "RGB")) for jpeg in jpegs
        ],
        "pdqhash, Pillow": lambda: [
            pdqhash.compute(np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))) for jpeg in jpegs
        ],
        "imagehash phash, Pillow": lambda: [imagehash.phash(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs],
    }
    rates = interleave(functions, len(jpegs), repeats=5)
    core = {rate.name: rate.per_core for rate in rates}
    limit = core["limit: grey decode alone"]
    peer = max(core[name] for name in core if name.startswith("pdqhash"))
    notes = [
        f"{np.mean([len(jpeg) for jpeg in jpegs]) / 1e3:.0f} KB on average",
        f"{rates[0].per_core / limit:.2f} x the grey decode alone, which is {limit / peer:.1f} x the fastest "
        "other way to PDQ",
        f"wanted 6 x the fastest other way to PDQ: {rates[0].per_core / peer:.1f} x",
    ]
    return table(f"JPEG to hash, {kind}", "pictures", rates, notes)


def resampling(jpegs: list[bytes]) -> str:
    """What our copy of Pillow's resampling saves, from JPEG to hash, against Pillow's own; equal codes."""

    def pillow(hash_small: Callable[[np.ndarray], int], size: tuple[int, int]) -> list[int]:
        codes = []
        for jpeg in jpegs:
            grey = Image.fromarray(grey_or_rgb(jpeg)).convert("L")
            codes.append(hash_small(np.asarray(grey.resize(size, Image.Resampling.LANCZOS))))
        return codes

    functions: dict[str, Callable[[], list[int]]] = {
        "phash": lambda: [int(hash_picture(jpeg, "phash")[0][0]) for jpeg in jpegs],
        "phash, resized by Pillow": partial(pillow, ops.phash, (32, 32)),
        "dhash": lambda: [int(hash_picture(jpeg, "dhash")[0][0]) for jpeg in jpegs],
        "dhash, resized by Pillow": partial(pillow, ops.dhash, (9, 8)),
    }
    for method in ("phash", "dhash"):
        assert functions[method]() == functions[f"{method}, resized by Pillow"]()
    rates = interleave(functions, len(jpegs), repeats=5)
    core = {rate.name: rate.per_core for rate in rates}
    costs = [f"{m} {core[m] / core[f'{m}, resized by Pillow']:.2f} x" for m in ("phash", "dhash")]
    note = f"cost of a picture with Pillow: {', '.join(costs)}"
    return table("JPEG to hash, resized by us and by Pillow", "pictures", rates, [note])
