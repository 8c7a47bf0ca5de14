"""`hpcscale labels classes`: lists of classes, for `selection.classes`."""

from pathlib import Path

import click

from hpcscale.cli.terminal import FILE, OUT


@click.command()
@click.argument("file", metavar="VOCABULARY", type=FILE)
@click.option("--with", "listed", type=FILE, help="Classes to take: one name, tag or wnid a line.")
@click.option("--skip-missing", is_flag=True, help="Leave out those that the vocabulary lacks.")
@click.option("--most", type=click.IntRange(0, 2**31 - 1), default=0, metavar="N",
              help="And the N most frequent others.")  # fmt: skip
@click.option("--out", type=OUT, required=True, help="The list to write: one name a line.")
def classes(file: Path, listed: Path | None, skip_missing: bool, most: int, out: Path) -> None:
    """Write a list of classes to train on.

    Name it as selection.classes in a recipe: labels are then restricted to these classes. With the 1,000
    synsets of ImageNet, --most 4000 gives the IN-5k of Mahajan et al. 2018 and --most 8000 the IN-9k, which
    contains it. With --skip-missing, the synsets that JFT has give the 941 of Sun et al. 2017.

    How frequent a class is, the vocabulary says: in how many samples it holds, by itself or by a class below
    it. For lists by frequency, take a vocabulary built with --no-ancestors: it counts each class by itself.
    """
    from hpcscale.files import check_output, marked, write_file
    from hpcscale.labels import restrict
    from hpcscale.labels.vocabulary import load

    if listed is None and not most:
        raise click.UsageError("which classes? Name a file with --with, or a number with --most, or both")
    check_output(out, [file, listed], marked(restrict.MARK.encode()))
    vocabulary = load(file)
    ids: tuple[int, ...] = ()
    missing: list[restrict.Missing] = []
    if listed is not None and skip_missing:
        ids, missing = restrict.look_up(listed, vocabulary)
    elif listed is not None:
        ids = restrict.read_classes(listed, vocabulary)
    chosen = restrict.most_frequent(vocabulary, ids, most)
    never = restrict.never(restrict.restricted(vocabulary, chosen))
    write_file(out, restrict.listing(vocabulary, chosen).encode())
    if missing:
        first = f"the first is {missing[0].name!r:.80} in line {missing[0].line}"
        click.echo(f"{listed}: left out {len(missing)} that the vocabulary lacks, {first}", err=True)
    if (found := len(chosen) - len(ids)) < most:
        click.echo(f"{file}: there are only {found} other classes, not {most}", err=True)
    if never:
        few = f"{len(never)} of the classes, such as {never[0]!r:.80}"
        click.echo(f"{out}: no picture can have {few}: no tag selects them or a class below them", err=True)
    click.echo(f"{out}: {len(chosen)} classes of {len(vocabulary.classes)}, {len(ids)} of them listed")
