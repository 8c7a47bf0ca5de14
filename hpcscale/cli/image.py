"""hpcscale image: build, test, verify, info. Parse, call hpcscale.cluster.image, print."""

import json
from pathlib import Path

import click

from hpcscale.cli.terminal import ANY, FILE


@click.group()
def image() -> None:
    """Make the image that jobs run in, and check it."""


@image.command()
@click.argument("kind", type=click.Choice(("cpu", "cuda")))
@click.option("--out", type=ANY, help="The image file.  [default: hpcscale-KIND.sif]")
@click.option("--mirror", help="Debian mirror.  [default: the one that apt uses here]")
@click.option("--sign", is_flag=True, help="Sign it with your key (apptainer key newpair makes one).")
@click.option("--fresh", is_flag=True, help="Build from nothing, even if the file exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record.")
def build(kind: str, out: Path | None, mirror: str | None, sign: bool, fresh: bool, as_json: bool) -> None:
    """Build, test and record an image of this clone as it is now.

    Needs no root. Beside the image FILE it writes FILE.json, the record with the SHA-256 that jobs check, and
    FILE.cdx.json, a bill of materials. If FILE exists, it is replaced at the very end; if only Python files
    have changed since, the build is short. Prints the path.
    """
    from hpcscale.cluster.image import build

    out = out or Path(f"hpcscale-{kind}.sif")
    record = build(
        kind, out, mirror=mirror, sign=sign, fresh=fresh, say=lambda line: click.echo(line, err=True)
    )
    click.echo(json.dumps(record, indent=1) if as_json else out)


@image.command()
@click.argument("file", type=FILE)
def test(file: Path) -> None:
    """Run the image's own test.

    Imports everything, decodes a picture, and lets two ranks add a number.
    """
    from hpcscale.cluster.image import test

    click.echo(test(file), nl=False)


@image.command()
@click.argument("file", type=FILE)
def verify(file: Path) -> None:
    """Check that an image is the one that was recorded, bit by bit.

    Also checks its signature, if it has one.
    """
    from hpcscale.cluster.image import verify

    click.echo(f"{file}: {verify(file)['sha256']}, as recorded")


@image.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True)
def info(file: Path, as_json: bool) -> None:
    """Print the record of an image: version, commit, digests, size."""
    from hpcscale.cluster.image import info

    record = info(file)
    if as_json:
        click.echo(json.dumps(record, indent=1))
        return
    for key, value in record.items():
        click.echo(f"{key:<12} {value}")
