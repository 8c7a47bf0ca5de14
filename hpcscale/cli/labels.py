"""`hpcscale labels build | show`: from a data set's tags to a vocabulary file, and what is in it."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcscale.cli.engineer import engineer
from hpcscale.cli.lists import classes
from hpcscale.cli.precision import precision
from hpcscale.cli.statistics import noise, stats
from hpcscale.cli.terminal import ANY, FILE, FOLDER, OUT
from hpcscale.text import shown as shown_name

if TYPE_CHECKING:
    from hpcscale.labels.build import Records
    from hpcscale.labels.vocabulary import Vocabulary


@click.group()
def labels() -> None:
    """Build and inspect vocabularies: from tags to classes.

    A vocabulary also says which class is a parent of which.
    """


for command in (classes, engineer, stats, noise, precision):
    labels.add_command(command)


@labels.command()
@click.argument("out", type=OUT)
@click.option("--data", type=FOLDER, help="Data set that `data ingest` wrote.")
@click.option("--manifest", type=FILE, help="Manifest of pictures and tags, instead of a data set.")
@click.option("--wordnet", type=ANY, help="Folder of WordNet.  [/usr/share/wordnet]")
@click.option("--parents", type=FILE, help="Your own hierarchy: class, parent (.tsv, .csv, .jsonl).")
@click.option(
    "--use",
    type=click.Choice(["wnids", "tags", "both"]),
    help="Tags that count: synset ids, words or both.  [wnids if all records have one, words if none has]",
)
@click.option("--select", type=FILE, help="Only tags with one of the senses in this file, one wnid a line.")
@click.option("--top", type=click.IntRange(1, 2**31 - 1), help="Only this many classes, the most frequent.")
@click.option(
    "--merge",
    type=click.Choice(["identical", "monosemous", "first-sense"]),
    help="Tags that become one class: same senses, same single sense, same first sense.  [identical]",
)
@click.option("--ancestors/--no-ancestors", default=True, help="Make classes of hypernyms too.  [yes]")
@click.option("--root", is_flag=True, help="Make a class of 'entity' too, which holds for every picture.")
@click.option("--force", is_flag=True, help="Replace a finished file, even one that differs.")
def build(
    out: Path,
    data: Path | None,
    manifest: Path | None,
    wordnet: Path | None,
    parents: Path | None,
    ancestors: bool,
    force: bool,
    **choices: Any,
) -> None:
    """Build the vocabulary file OUT from the tags of a data set."""
    given = {key: value for key, value in choices.items() if value}
    if (data is None) == (manifest is None):
        raise click.UsageError("name either --data or --manifest")
    if parents is not None and (wordnet is not None or given):
        other = "wordnet" if wordnet is not None else next(iter(given))
        raise click.UsageError(f"--{other} is about WordNet and does not go with --parents")

    from hpcscale.files import check_output, marked, read_text
    from hpcscale.labels import hierarchy
    from hpcscale.labels.build import Choice, from_hierarchy, from_wordnet
    from hpcscale.labels.statistics import summary
    from hpcscale.labels.vocabulary import FORMAT, save

    select = given.get("select")
    check_output(out, [data, manifest, parents, select], marked(FORMAT.encode()))
    tags, records = _of_data(data) if data is not None else _of_manifest(manifest or Path())
    if parents is not None:
        vocabulary = from_hierarchy(tags, records, hierarchy.read(parents), ancestors=ancestors)
    else:
        if "select" in given:
            given["select"] = read_text(given["select"]).split()
        choice = Choice(ancestors=ancestors, **given)
        place = {} if wordnet is None else {"folder": wordnet}
        vocabulary = from_wordnet(tags, records, choice, **place)
    save(vocabulary, out, force)
    _report(vocabulary, tags)
    _print_summary(summary(vocabulary), out)


@labels.command()
@click.argument("file", metavar="OUT", type=FILE)
@click.argument("name", metavar="[CLASS]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(file: Path, name: str | None, as_json: bool) -> None:
    """Show a summary of the vocabulary OUT, or one of its classes.

    CLASS is the name of a class, a tag that selects it, or its wnid.
    """
    from hpcscale.labels.statistics import describe, summary
    from hpcscale.labels.vocabulary import did_you_mean, find, load

    vocabulary = load(file)
    if name is None:
        found = summary(vocabulary)
    else:
        c = find(vocabulary, name)
        if c is None:
            raise click.UsageError(f"{file}: no class {name!r}{did_you_mean(vocabulary, name)}")
        found = describe(vocabulary, c)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif name is None:
        _print_summary(found, file)
    else:
        _print_class(found)


def _of_data(folder: Path) -> "tuple[tuple[str, ...], Records]":
    from hpcscale.data.store import open_data
    from hpcscale.labels.build import walk

    data = open_data(folder)
    return data.tags, walk(data)


def _of_manifest(manifest: Path) -> "tuple[tuple[str, ...], Records]":
    from hpcscale.ingest.sources import find_source
    from hpcscale.labels.build import CHUNK
    from hpcscale.labels.hierarchy import csr

    numbers: dict[str, int] = {}
    source = find_source(manifest.parent, manifest)
    for record in source.records():
        for tag in record.tags:
            numbers.setdefault(tag, len(numbers))

    def records() -> Iterator[Any]:
        stream = source.records()
        while chunk := list(islice(stream, CHUNK)):
            yield csr([[numbers[tag] for tag in record.tags] for record in chunk])

    return tuple(numbers), records


def _report(vocabulary: "Vocabulary", tags: tuple[str, ...]) -> None:
    """Say on stderr which tags and samples of the data have no class in the vocabulary."""
    from hpcscale.labels.build import WNID
    from hpcscale.labels.vocabulary import tag_classes

    use = vocabulary.about.get("use")
    if use in ("wnids", "tags"):  # the others were left out on purpose
        tags = tuple(tag for tag in tags if bool(WNID.fullmatch(tag)) == (use == "wnids"))
    selected = tag_classes(vocabulary, tags)
    if unused := [tag for tag, c in zip(tags, selected, strict=True) if c < 0]:
        examples = ", ".join(f"{tag!r:.80}" for tag in unused[:5]) + (", ..." if len(unused) > 5 else "")
        click.echo(f"{len(unused)} of {len(tags)} tags select no class: {examples}", err=True)
    if bare := vocabulary.samples - vocabulary.labelled:
        click.echo(f"{bare} of {vocabulary.samples} samples have no class", err=True)


def _print_summary(found: dict[str, Any], file: Path) -> None:
    click.echo(f"{file}")
    click.echo(f"  {found['classes']} classes, {found['roots']} without parents")
    click.echo(f"  {found['empty_classes']} classes without samples")
    widest = shown_name(found["widest"])
    click.echo(f"  depth {found['depth']}, at most {found['fan_out']} children ({widest})")
    click.echo(f"  {found['tags']} tags select a class")
    click.echo(f"  {found['labelled']} of {found['samples']} samples have a class")
    click.echo(f"  {found['labels_per_sample']:.2f} classes in each of those, with ancestors")
    about = ", ".join(f"{key}: {value}" for key, value in found["about"].items())
    click.echo(f"  built with {shown_name(about)}")


def _print_class(found: dict[str, Any]) -> None:
    lines = [f"{found['name']}  (class {found['id']}, {found['count']} of {found['samples']} samples)"]
    if found["senses"]:
        lines.append(f"  senses    {', '.join(found['senses'])}")
    lines.append(f"  tags      {', '.join(found['tags']) or 'none'}")
    lines.append(f"  parents   {', '.join(found['parents']) or 'none'}")
    for above in found["ancestors"]:
        below = f" < {', '.join(above['parents'])}" if above["parents"] else ""
        lines.append(f"  ancestor  {above['name']}{below}  ({above['count']})")
    lines += [f"  child     {child['name']}  ({child['count']})" for child in found["children"]]
    click.echo("\n".join(map(shown_name, lines)))
