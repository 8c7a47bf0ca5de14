"""`make study-demo`: a small study from one file, killed twice on the way.

In: Fashion-MNIST (Debian's package dataset-fashion-mnist), as `make transfer-demo` takes it. A ResNet-50
learns clothes from four numbers of pictures with weak labels, with two seeds; a linear probe of few other
pictures with true labels says what that brought. Out: `study-demo/`, and in it `study/report/report.md`: the
table, the line over sizes, a figure, and why four sizes are too few for a forecast. It ends with an error
unless everything is done in the end, nothing is done twice, and the forecast is refused. What more pictures
bring is told, with its error: in so short trainings that is little.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from hpcscale.cli.outcome import told
from hpcscale.cli.typed import hpcscale
from hpcscale.demos import transfer
from hpcscale.files import Told, write_file

KILLED = 2  # times
STUDY = """\
[axes]
size = [200, 800, 3200, 11400]
seed = [0, 1]
[stages.pretrain]
run = '''train {here} --config weak.toml --set selection.size={size}
    --set train.seed={seed} --set train.steps=120'''
[stages.probe]
run = "transfer probe {pretrain} --config probe.toml --out {here} --set target.seeds=[0]"
[report]
stage = "probe"
metric = "top1"
size = "size"
seeds = "seed"
at = [120_000]
"""


class Failed(Told):
    """The study is not what it must be."""


def kill_soon(words: list[str | Path], records: Path, after: int) -> None:
    """Run a command, and kill all of it by SIGKILL in the middle of the cell behind so many that are done."""
    with subprocess.Popen(
        [sys.executable, "-m", "hpcscale", *map(str, words)], start_new_session=True
    ) as process:
        while process.poll() is None and len(list(records.glob("*.json"))) < after:
            time.sleep(0.2)
        time.sleep(10)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def written(folder: Path) -> dict[Path, int]:
    """When the last checkpoint of every training, and the result of every probe, was written."""
    files = [*folder.glob("*/*/checkpoints/*.safetensors"), *folder.glob("*/*/transfer.json")]
    return {file: file.stat().st_mtime_ns for file in files}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("study-demo"), show_default=True)
@told()
def main(out: Path) -> None:
    """What more weakly labelled pictures bring: a study of eight trainings and eight probes from one file."""
    start = time.monotonic()
    os.environ["PYTHONNOUSERSITE"] = "1"
    if not transfer.FASHION.exists():
        raise Failed(f"{transfer.FASHION} is not there: apt-get install dataset-fashion-mnist")
    out = out.absolute()  # its recipes are read from there
    out.mkdir(parents=True, exist_ok=True)
    transfer.prepare(out)
    file = out / "study.toml"
    write_file(file, STUDY.encode())
    hpcscale("study", "plan", file)
    words: list[str | Path] = ["study", "run", file, "--here", "--ranks", "2"]
    records = out / "study" / "cells" / "pretrain"
    for number in range(1, KILLED + 1):
        if len(list(records.glob("*.json"))) < number:
            click.secho("\nKilled on its way:", bold=True, err=True)
            kill_soon(words, records, number)
    hpcscale(*words)
    hpcscale("study", "status", file)
    hpcscale("study", "report", file)
    before = written(out / "study")
    hpcscale(*words)
    click.secho(f"The demo took {time.monotonic() - start:.0f} s.", err=True)
    if written(out / "study") != before:
        raise Failed("a second `study run` did again what was done")
    text = (out / "study" / "report" / "report.md").read_text()
    if "No forecast: 4 different sizes" not in text:
        raise Failed("a forecast from four sizes, where five are needed")
    line = text.partition("The papers' line, ")[2].partition(". It is")[0]
    click.echo(f"Of the probe's top-1: {line}")


if __name__ == "__main__":
    sys.exit(main())
