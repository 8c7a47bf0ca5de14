"""hpcscale robustness: compose, evaluate, plot. Parse, call one function of hpcscale.robustness, print."""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT, OUT_FOLDER, Number, progress_bar

# As in hpcscale.robustness.compose, which is not imported for every --help.
POSITIONS = ("centre", "top-left", "top", "top-right", "left", "right", "bottom-left", "bottom",
             "bottom-right", "random")  # fmt: skip


@click.group()
def robustness() -> None:
    """Judge runs on objects out of their context."""


@robustness.command()
@click.argument("foregrounds", type=FOLDER)
@click.argument("backgrounds", type=FOLDER)
@click.argument("out", type=OUT_FOLDER)
@click.option("--share", type=Number(0, 1, min_open=True), default=0.8, show_default=True,
              help="Longer side of the object, of the side of the background's square.")  # fmt: skip
@click.option("--cut", type=click.Choice(["top-left", "centre"]), default="top-left", show_default=True,
              help="Where in the background its largest square lies.")  # fmt: skip
@click.option("--size", type=click.IntRange(1, 8192), metavar="N",
              help="Resize squares to N x N pixels.  [default: as large as they are]")  # fmt: skip
@click.option("--position", type=click.Choice(POSITIONS), default="centre", show_default=True,
              help="Where the object lies, always wholly inside.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
              help="Of random positions.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["jpeg", "png"]), default="jpeg", show_default=True)
@click.option("--foreground-attributions", type=FILE,
              help="CSV or TSV.  [default: attributions.csv or .tsv in FOREGROUNDS]")  # fmt: skip
@click.option("--background-attributions", type=FILE,
              help="CSV or TSV.  [default: attributions.csv or .tsv in BACKGROUNDS]")  # fmt: skip
@click.option("--without-attribution", is_flag=True, help="Take pictures without an attribution too.")
@AS_JSON
def compose(
    foregrounds: Path,
    backgrounds: Path,
    out: Path,
    form: Any,
    foreground_attributions: Path | None,
    background_attributions: Path | None,
    without_attribution: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Paste each cut-out object on each background.

    FOREGROUNDS holds one folder a class, of PNGs with transparency, or a manifest with one tag a picture, as
    `data ingest` reads them; BACKGROUNDS pictures. OUT gets pictures/, manifest.jsonl, which `data ingest`
    packs, and attributions.csv. Columns of attributions are image, title, author, source and licence.

    After an interruption or a kill, type the same command again: it goes on where it was.
    """
    from hpcscale.robustness import compose as composing

    attributed = composing.Attributed(
        foreground_attributions, background_attributions, not without_attribution
    )
    with progress_bar() as progress:
        found = composing.compose(
            foregrounds, backgrounds, out, composing.Settings(format=form, **settings), attributed, progress
        )
    if as_json:
        click.echo(json.dumps(found._asdict()))
        return
    click.echo(
        f"{out}: {found.pictures} pictures: {found.foregrounds} objects of {found.classes} classes on "
        f"{found.backgrounds} backgrounds"
    )


@robustness.command()
@click.argument("run", type=FOLDER)
@click.argument("composed", type=FOLDER)
@click.option(
    "--classes",
    type=FILE,
    help="Which classes of RUN are right, CSV or TSV.  [default: those of the same names]",
)
@click.option(
    "--upstream", metavar="NAME",
    help="What RUN was trained on before, for `plot`.  [default: the name of its model.init]",
)  # fmt: skip
@click.option("--data", type=FOLDER, help="Where the data set of RUN's evaluation is, if it has moved.")
@click.option(
    "--out", type=OUT, help="JSON.  [default: RUN/robustness/NAME-STEP.json, NAME that of COMPOSED]"
)
@click.option("--batch", type=click.IntRange(1, 65536), default=32, show_default=True, metavar="N",
              help="Pictures at a time.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 4096), metavar="N",
              help="Processes that pack the pictures.  [default: one a core]")  # fmt: skip
@AS_JSON
def evaluate(run: Path, composed: Path, as_json: bool, **options: Any) -> None:
    """Judge RUN on the pictures that are COMPOSED.

    COMPOSED is a folder that `robustness compose` wrote. Prints top-1 and top-5 of all pictures, of each
    class, object and background, beside what the newest evaluation of RUN says of pictures in context. The
    classes that tags of that evaluation's data select compete.

    Columns of --classes are foreground, a class of objects; classes, one or several of RUN's with | between
    them; and perhaps relation: =, or < where the objects are a kind of the class.
    """
    from hpcscale.robustness import evaluate as judging
    from hpcscale.robustness import result

    with progress_bar() as progress:
        file, found = judging.evaluate(run, composed, judging.Options(**options), progress)
    if as_json:
        click.echo(file.read_text().rstrip())
    else:
        click.echo(f"{result.as_text(found)}\n\n{file}")


@robustness.command()
@click.argument("evaluations", type=FILE, nargs=-1, required=True)
@click.argument("out", type=OUT)
@click.option("--picture", "pictures", multiple=True, metavar="IMAGE",
              help="Draw the guesses for this picture; may be repeated.")  # fmt: skip
def plot(evaluations: tuple[Path, ...], out: Path, pictures: tuple[str, ...]) -> None:
    """Draw accuracy out of context against that in context.

    EVALUATIONS are the files of `robustness evaluate`, one a run; OUT is an SVG or PNG. A larger mark is a
    larger network, its shape says what it was trained on before. With --picture, an image of the manifest,
    the five best guesses of each run on a logarithmic scale instead.
    """
    from hpcscale.robustness import plot as drawing

    drawing.plot(evaluations, out, pictures)
    click.echo(out)
