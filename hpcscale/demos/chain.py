"""`make demo`: the whole chain on real photographs, by the commands that a user would type.

In: nothing (crops of eleven photographs that come with scikit-image), or your own folder of pictures and
manifest. Out: `demo/` with pictures, shards, vocabulary, run and report. An interrupted demo goes on where it
was; a finished one prints its report again. Delete the folder to start anew.
"""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from hpcscale.cli.outcome import told
from hpcscale.cli.typed import hpcscale
from hpcscale.files import remove_asides, write_file


class Photograph(NamedTuple):
    name: str  # in skimage.data
    wnid: str  # WordNet 3.0 synset of its subject
    tag: str
    credit: str


PHOTOGRAPHS = (
    Photograph("astronaut", "n09818022", "astronaut", "NASA, public domain"),
    Photograph("chelsea", "n02123045", "tabby", "Stefan van der Walt, CC0"),
    Photograph("coffee", "n03063073", "coffee_cup", "Rachel Michetti, Pikolo Espresso Bar, CC0"),
    Photograph("rocket", "n04099429", "rocket", "SpaceX, public domain"),
    Photograph("hubble_deep_field", "n08271042", "galaxy", "NASA, HubbleSite, public domain"),
    Photograph("retina", "n05426989", "retina", "Mikael Häggström, CC0"),
    Photograph("camera", "n10426749", "photographer", "Lav Varshney, CC0"),
    Photograph("brick", "n02898369", "brickwork", "CC0Textures, CC0"),
    Photograph("grass", "n12102133", "grass", "linolafett, CC0"),
    Photograph("gravel", "n14698884", "gravel", "CC0Textures, CC0"),
    Photograph("clock", "n03046257", "clock", "Stefan van der Walt, public domain"),
)
CROPS = 36  # of each photograph


def write_pictures(folder: Path) -> Path:
    """Cut every photograph into CROPS random squares of 45 to 95 % of its short side. Returns: manifest."""
    import skimage.data
    from PIL import Image

    manifest = folder / "manifest.jsonl"
    if manifest.exists():  # written last
        return manifest
    ours = {f"{photograph.name}-{number:02d}.jpg" for photograph in PHOTOGRAPHS for number in range(CROPS)}
    ours.add("CREDITS.txt")
    remove_asides(manifest)
    if others := sorted({file.name for file in folder.glob("*")} - ours):
        raise click.UsageError(f"{folder}: holds other files, first {others[0]!r}; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    lines = []
    for photograph in PHOTOGRAPHS:
        pixels = getattr(skimage.data, photograph.name)()
        height, width = pixels.shape[:2]
        for number in range(CROPS):
            side = int(min(height, width) * chance.uniform(0.45, 0.95))
            top, left = chance.integers(height - side + 1), chance.integers(width - side + 1)
            name = f"{photograph.name}-{number:02d}.jpg"
            Image.fromarray(pixels[top : top + side, left : left + side]).save(folder / name, quality=92)
            lines.append(
                json.dumps({"image": name, "wnid": photograph.wnid, "tags": [photograph.tag]}) + "\n"
            )
    credits = "\n".join(f"{p.name}: {p.credit}" for p in PHOTOGRAPHS)
    (folder / "CREDITS.txt").write_text(f"Crops of photographs that come with scikit-image:\n{credits}\n")
    write_file(manifest, "".join(lines).encode())
    return manifest


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Your pictures instead of ours.")
@click.option(
    "--manifest", type=click.Path(path_type=Path, exists=True), help="Paths and tags of your pictures."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@told()
def main(data: Path | None, manifest: Path | None, out: Path) -> None:
    """From photographs to shards, a label hierarchy, a ResNet trained on two ranks, and a report."""
    start = time.monotonic()
    os.environ["PYTHONNOUSERSITE"] = "1"
    if data:
        out = out / data.resolve().name
    else:
        if manifest:
            raise click.UsageError("--manifest goes with --data")
        data = out / "pictures"
        manifest = write_pictures(data)
        click.echo(
            f"{len(PHOTOGRAPHS) * CROPS} crops of {len(PHOTOGRAPHS)} photographs from scikit-image (CC0 or "
            f"public domain; credits in {data}/CREDITS.txt), with WordNet labels.\n"
            "Held-out crops come from the same photographs as the training crops: this shows that the chain "
            "works, not that the model generalises.",
            err=True,
        )
    named = ("--manifest", manifest) if manifest else ()
    hpcscale("data", "ingest", data, out / "data", *named, "--resize", "72")
    if not (out / "vocabulary.json").exists():
        hpcscale("labels", "build", out / "vocabulary.json", "--data", out / "data")
    hpcscale(
        *("train", out / "run", "--config", "demo.toml", "--ranks", "2"),
        *("--set", f"data.train={out / 'data'}", "--set", f"data.vocabulary={out / 'vocabulary.json'}"),
    )
    hpcscale("report", out / "run")
    click.secho(f"\nThe demo took {time.monotonic() - start:.0f} s.", err=True)


if __name__ == "__main__":
    main()
