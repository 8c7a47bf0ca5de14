"""`hpcscale export`: a trained network as one file for other programs."""

import json
from pathlib import Path

import click

from hpcscale.cli.terminal import AS_JSON, OUT, SOURCE


@click.command()
@click.argument("place", type=SOURCE, metavar="RUN")
@click.argument("out", type=OUT)
@AS_JSON
def export(place: Path, out: Path, as_json: bool) -> None:
    """Write the network of RUN to OUT.safetensors or OUT.onnx.

    RUN is a run folder, whose newest checkpoint is taken, or one of its checkpoints. The names in a
    safetensors file are torchvision's. An ONNX file reads `images` (batch, 3, crop, crop), prepared as the
    file's metadata say, and gives `logits`. Both hold, as JSON below the key "hpcscale", the preprocessing
    and the classes in their order. The file is run before it gets its name: its logits are the network's.
    """
    from hpcscale.export import PICTURES
    from hpcscale.export import export as write

    found = write(place, out)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(
        f"{out}: {found['model']} of step {found['step']}, {len(found['classes'])} classes, "
        f"{out.stat().st_size / 1e6:.1f} MB; logits of {PICTURES} made-up pictures differ by at most "
        f"{found['difference']:.1g}"
    )
