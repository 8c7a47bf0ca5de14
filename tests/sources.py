"""Sources of pictures that are alike in all but what they show: a folder, an archive, a data set."""

import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from hpcscale.ingest.packing import Packing, ingest

COUNT = 10


def noise(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


def make_pictures(folder: Path, first: int = 0) -> Path:
    """Of one size in bytes, and of one time, whatever they show; the last cannot be decoded."""
    folder.mkdir()
    for number in range(COUNT):
        file = folder / f"{number:02}.jpg"
        if number == COUNT - 1:
            file.write_bytes(f"no picture {first:04}".encode().ljust(20_000))
        else:
            noise(first + number).save(file, quality=90)
            file.write_bytes(file.read_bytes().ljust(20_000, b"\0"))
        os.utime(file, (1e9, 1e9))
    return folder


def as_tar(folder: Path) -> Path:
    tar = folder.with_suffix(".tar")
    with tarfile.open(tar, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return tar


def as_data_set(folder: Path, resize: int | None = None) -> Path:
    out = folder.with_suffix(".data")
    ingest(folder, out, manifest_of(folder), Packing(resize, shard_samples=6), workers=1)
    return folder.with_suffix(".data")


def manifest_of(folder: Path) -> Path:
    file = folder.with_suffix(".jsonl")
    file.write_text("".join(f'{{"image": "{x.name}", "tags": ["a"]}}\n' for x in sorted(folder.iterdir())))
    return file


KINDS = [lambda folder: folder, as_tar, as_data_set]
