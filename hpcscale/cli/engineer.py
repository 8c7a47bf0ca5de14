"""`hpcscale labels engineer`: a vocabulary for a target task, and a table that says why."""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import ANY, AS_JSON, FILE, FOLDER, OUT, progress_bar
from hpcscale.text import shown


@click.command()
@click.option("--data", type=FOLDER, required=True, help="Data set that `data ingest` wrote.")
@click.option("--target", type=FILE, required=True, help="Classes of the target task: a wnid or name a line.")
@click.option("--budget", type=click.IntRange(1, 2**31 - 1), help="At most this many classes.")
@click.option("--pictures", type=click.IntRange(1, 2**53), help="Classes until this many pictures have one.")
@click.option("--out", type=OUT, required=True, help="The vocabulary file.")
@click.option("--table", type=OUT, help="Why each class is in, or not.  [--out, ending in .tsv]")
@click.option("--up", type=click.IntRange(0, 20), default=2, show_default=True,
              help="Most hypernyms from a target to a class above it; 0 takes none.")  # fmt: skip
@click.option("--use", type=click.Choice(["wnids", "tags", "both"]), help="As in `labels build`.")
@click.option("--wordnet", type=ANY, help="Folder of WordNet.  [/usr/share/wordnet]")
@click.option("--ancestors/--no-ancestors", default=False, help="Make classes of hypernyms too.  [no]")
@click.option("--force", is_flag=True, help="Replace finished files, even ones that differ.")
@AS_JSON
# arguments: click gives one for each option
def engineer(
    data: Path,
    target: Path,
    budget: int | None,
    pictures: int | None,
    out: Path,
    table: Path | None,
    wordnet: Path | None,
    up: int,
    use: Any,
    ancestors: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Choose the tags to pretrain on for a target task.

    Takes the tags that mean a class of the target, then those below it in WordNet, then those little above
    it, up to --budget or until --pictures. Writes them as a vocabulary for recipes, and beside it a table
    that says why each class is in or was left out.
    """
    if (budget is None) == (pictures is None):
        raise click.UsageError("name either --budget or --pictures")
    table = table or out.with_suffix(".tsv")
    if table == out:
        raise click.UsageError(f"--table: {table} is the vocabulary too; choose another")

    from hpcscale.data.store import open_data
    from hpcscale.files import check_output, marked
    from hpcscale.labels import wordnet as nouns
    from hpcscale.labels.build import Choice, walk
    from hpcscale.labels.engineer import MARK, Wish, summary, write
    from hpcscale.labels.engineer import engineer as choose
    from hpcscale.labels.relations import read_targets
    from hpcscale.labels.vocabulary import FORMAT

    folder = wordnet or nouns.FOLDER
    check_output(out, [data, target], marked(FORMAT.encode()))
    check_output(table, [data, target, out], marked(MARK))
    wish = Wish(read_targets(target, nouns.read(folder)), budget, pictures, up)
    source = open_data(data)
    with progress_bar() as progress:
        records = walk(source, progress)
        found = choose(source.tags, records, wish, Choice(use=use, ancestors=ancestors), folder=folder)
    write(found, out, table, force)
    told = {"file": str(out), "table": str(table)} | summary(found, wish)
    click.echo(json.dumps(told, indent=2, ensure_ascii=False) if as_json else _engineered(told))
    if told["exact_left_out"]:
        click.echo(f"exact classes that the limit leaves out: {told['exact_left_out']}", err=True)
    if pictures and told["pictures"] < pictures:
        click.echo(f"there are no {pictures} pictures for this target, only {told['pictures']}", err=True)
    if bare := told["unserved"]:
        listed = ", ".join(map(shown, bare[:5])) + (", ..." if len(bare) > 5 else "")
        click.echo(f"no class serves {len(bare)} of the {told['targets']} targets: {listed}", err=True)


def _engineered(told: dict[str, Any]) -> str:
    by_relation = ", ".join(f"{told[each]} {each}" for each in ("exact", "below", "above"))
    return "\n".join([
        f"{told['file']}",
        f"  {told['classes']} classes for {told['targets']} targets: {by_relation}",
        f"  {told['pictures']} of {told['samples']} pictures have one of them",
        *(f"  {n} left out: {reason}" for reason, n in told["left_out"].items()),
        f"  why: {told['table']}",
    ])  # fmt: skip
