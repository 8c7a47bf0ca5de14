"""Pictures, and a gallery over them, for the tests of its page."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from hpcscale import pairs
from hpcscale.dedup.gallery import Sources, gallery

ODD = "<img src=x onerror=alert(1)>\"'&amp;\n</script><!--\u2028é.png"


ROWS = [("x", "1", 3), ("y", "1", 9), ("z", "2", 1), ("x", "2", 20), ("y", "3", 12)]


def picture(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).resize((50, 40)).save(file, "PNG")
    return file


def make(folder: Path, rows, **options):
    """A page over pictures of the names in rows; returns its file."""
    for seed, name in enumerate(dict.fromkeys(name for a, b, _ in rows for name in (f"a/{a}", f"b/{b}"))):
        picture(folder / name, seed)
    lines = "".join(f"{pairs.escape(a)}\t{pairs.escape(b)}\t{d}\n" for a, b, d in rows)
    (folder / "pairs.tsv").write_bytes(os.fsencode(lines))
    gallery(folder / "pairs.tsv", folder / "page.html", Sources(folder / "a", folder / "b"), **options)
    return folder / "page.html"
