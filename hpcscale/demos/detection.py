"""`make detect-demo`: a detector from a pretrained network, by the commands that a user would type.

In: a folder of PASCAL VOC's layout, by default blood cells under the microscope, if they lie beside the clone
(205 pictures to train on, 72 to test). The network is that of `make demo`, trained on crops of photographs.
Out: `detect-demo/` with packed data, a Faster R-CNN from those weights, one from random weights, and reports.
The training from weights is killed once, by SIGKILL, and goes on; a second one, which nobody kills, is
compared with it bit by bit at `COMPARED` steps. Ends with an error unless AP at an overlap of .5 is above
`WANTED`, and the bits are equal.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from hpcscale.cli.outcome import told
from hpcscale.cli.typed import hpcscale
from hpcscale.files import Told, read_json, write_file

WANTED = 0.4
KILLED, COMPARED = 40, 60  # steps
RECIPE = """\
[data]
train = "{out}/train"
validation = "{out}/test"
[input]
shorter = 160
longer = 214
values = "{values}"
[detector]
name = "faster_rcnn"
anchors = [8, 16, 32, 48, 64]
ratios = [1.0]
frozen = 1
candidates = [400, 200]
proposals = [200, 100]
rpn_batch = 128
box_batch = 64
score = 0.05
[optimizer]
weight_decay = 1e-4
[schedule]
name = "cosine"
lr = 0.01
warmup = 40
[train]
steps = {steps}
batch = 4
log_every = 20
checkpoint_every = 20
keep_at = [{compared}]
"""


class Failed(Told):
    """The detector is not what it must be."""


def split(source: Path, out: Path, part: str) -> Path:
    """A part of ImageSets/Main, pictures and annotations, packed: `OUT/PART`."""
    names = (source / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
    folder = out / f"{part}-source"
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            file = f"{name.split('.')[0]}.{ending}"
            if not (folder / kind / file).exists():
                shutil.copyfile(source / kind / file, folder / kind / file)
    words = ("--annotations", folder / "Annotations")
    hpcscale("data", "ingest", folder / "JPEGImages", out / part, *words)
    return out / part


def train_until(run: Path, words: list[str | Path], step: int, kill: signal.Signals) -> None:
    """Train, and send a signal to all of it when the checkpoint of a step is there."""
    record = run / "checkpoints" / f"step-{step:08d}.json"
    command = [sys.executable, "-m", "hpcscale", "train", run, *words]
    with subprocess.Popen(command, start_new_session=True) as process:
        while process.poll() is None and not record.exists():
            time.sleep(0.2)
        if process.poll() is None:
            os.killpg(process.pid, kill)
    if not record.exists():
        raise Failed(f"{run}: the training ended before step {step}, with exit code {process.returncode}")


@click.command()
@click.option(
    "--data", "source", type=click.Path(path_type=Path), required=True, help="Folder of VOC's layout."
)
@click.option("--network", type=click.Path(path_type=Path), default=Path("demo/run"), show_default=True,
              help="Run to start from.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("detect-demo"), show_default=True)
@click.option("--steps", type=click.IntRange(COMPARED), default=300, show_default=True)
@told()
def main(source: Path, network: Path, out: Path, steps: int) -> None:
    """Train detectors of blood cells from a pretrained and from a random network, and compare."""
    start = time.monotonic()
    os.environ["PYTHONNOUSERSITE"] = "1"
    if not (source / "Annotations").is_dir():
        raise Failed(f"{source}: no folder Annotations; name one of its layout with VOC=FOLDER")
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        split(source, out, part)
    values = read_json(network / "config.json")["input"]["values"]
    recipe = out / "recipe.toml"
    text = RECIPE.format(out=out, values=values, steps=steps, compared=COMPARED)
    write_file(recipe, text.encode())
    ranks: list[str | Path] = ["--config", recipe, "--ranks", "2"]
    words = [*ranks, "--set", f"model.init={network}"]
    whole, other = out / "pretrained", out / "undisturbed"
    if not (whole / "checkpoints").exists():
        click.secho("\nKilled once:", bold=True, err=True)
        train_until(whole, words, KILLED, signal.SIGKILL)
    hpcscale("train", whole, *words)
    place = Path("checkpoints") / f"step-{COMPARED:08d}.safetensors"
    if not (other / place).exists():
        train_until(other, words, COMPARED, signal.SIGTERM)
    hpcscale("train", out / "random", *ranks)
    hpcscale("report", whole)
    hpcscale("report", out / "random")
    hpcscale("report", whole, out / "random", "--out", out / "comparison.md")
    same = (whole / place).read_bytes() == (other / place).read_bytes()
    found = ap50(whole, steps)
    click.echo(f"AP at .5: {found:.3f} pretrained, {ap50(out / 'random', steps):.3f} from random weights")
    click.echo(
        f"Killed after step {KILLED} and gone on with: {'the same' if same else 'OTHER'} bits at {COMPARED}"
    )
    click.secho(f"The demo took {time.monotonic() - start:.0f} s.", err=True)
    if not same or found <= WANTED:
        raise Failed(f"wanted are the same bits, and AP at .5 above {WANTED}")


def ap50(run: Path, step: int) -> float:
    file = run / "evaluations" / f"validation-{step:08d}" / "metrics.json"
    return float(json.loads(file.read_text())["metrics"]["AP50"] or 0.0)


if __name__ == "__main__":
    sys.exit(main())
