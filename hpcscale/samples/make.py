"""Index files: the work of `hpcscale data index`, which array tasks may share.

In: a recipe. Out: an index file. First the candidates of some shards at a time are left in OUT.parts, by
whatever task; what all of them together decide comes then, in one process that walks the parts a few times.
The same command goes on where a killed one stopped, and ends with the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path

from hpcscale.config import Config
from hpcscale.data.manifest import DataError
from hpcscale.data.parts import Part, check_part, locked, part_of, parts_folder, remove_parts
from hpcscale.data.store import DataSet, open_data
from hpcscale.files import OutputError, check_output, compared, remove_asides
from hpcscale.progress import Progress, none
from hpcscale.samples.candidates import CHUNK, Candidates, NameLists, Tally, Walk, name_lists
from hpcscale.samples.chosen import describe, is_whole, open_vocabulary
from hpcscale.samples.files import PART, read_index, read_part, written
from hpcscale.samples.index import Index, build, id_type

MAX_PARTS = 1000


def make_index(
    settings: Config, out: Path, part: Part | None = None, progress: Progress = none
) -> Index | None:
    """Write the index file of a recipe, or the share of task I of N, and then return None.

    Raises what `chosen.choose` does, OutputError where `out` is there and says something else, Busy where
    another call does the same share. After OSError the same call can be made again.
    """
    check_part(part)
    data, vocabulary = open_data(settings.data.train), open_vocabulary(settings)
    lists = name_lists(settings)
    sources = [settings.data.train, settings.data.vocabulary, settings.selection.classes]
    check_output(out, [*sources, *(names.file for names in lists if names)], compared)
    about = describe(settings, data, vocabulary, lists)
    if out.exists() and out.stat().st_size:
        return _finished(out, about, data.samples)
    shards = range(len(data.entries))
    parts = min(MAX_PARTS, max(1, len(shards)))
    folder = parts_folder(out)
    with locked(folder, part):
        for number in part_of(parts, part):
            file = folder / f"{number:05d}.h5"
            mine = part_of(len(shards), (number, parts))
            if not _there(file, f"{about} {number}/{parts}"):
                remove_asides(file)
                _write_part(file, f"{about} {number}/{parts}", Walk(settings, data, vocabulary, lists), mine)
            progress("shards", mine.stop, len(shards))
        if part is not None:
            return None
        remove_asides(out)  # left by killed calls
        files = [folder / f"{number:05d}.h5" for number in range(parts)]
        _join(settings, data, lists, files, out, about, progress)
    remove_parts(out)
    return read_index(out, data.samples)[0]


def _finished(out: Path, about: str, samples: int) -> Index:
    try:
        index, made_of = read_index(out, samples)
    except DataError:
        made_of = ""
    if made_of != about:
        raise OutputError(
            f"{out}: is there already, and is no index of this recipe; choose another name, or remove it"
        )
    remove_parts(out)  # killed between the join and this
    return index


def _there(file: Path, about: str) -> bool:
    """Whether a part is there. Raises OutputError where it is another one's."""
    if not file.exists():
        return False
    if read_part(file, CHUNK)[2] != about:
        raise OutputError(f"{file}: was made of other contents or settings; remove {file.parent}")
    return True


def _write_part(file: Path, about: str, walk: Walk, shards: range) -> None:
    entries = [walk.data.entries[index] for index in shards]
    samples, tags = sum(entry.samples for entry in entries), sum(entry.tags for entry in entries)
    lengths = dict.fromkeys(PART, samples) | {"offsets": samples + 1, "classes": tags}
    named = {f"{name}_known": names.known if names else [] for name, names in walk.lists._asdict().items()}
    lengths |= {name: len(known) for name, known in named.items()}
    with written(file, "part", about) as (make, stated):
        arrays = make({name: (length, PART[name]) for name, length in lengths.items()})
        rows = labels = 0
        arrays["offsets"][0] = 0
        for found in walk(shards):
            n, m = len(found.samples), len(found.classes)
            for name in ("samples", "pictures", "held_out", "named"):
                arrays[name][rows : rows + n] = getattr(found, name)
            arrays["offsets"][rows + 1 : rows + n + 1] = found.offsets[1:] + labels
            arrays["classes"][labels : labels + m] = found.classes
            rows, labels = rows + n, labels + m
        for name, known in named.items():
            arrays[name][:] = known
        used = dict.fromkeys(("samples", "pictures", "held_out", "named"), rows)
        stated["lengths"] = lengths | used | {"offsets": rows + 1, "classes": labels}
        stated["tally"] = walk.tally._asdict()


def _join(
    settings: Config, data: DataSet, lists: NameLists, files: list[Path], out: Path, about: str,
    progress: Progress,
) -> None:  # fmt: skip
    tally, candidates = Tally(), 0
    for file in files:
        _, met, _ = read_part(file, CHUNK)
        tally = tally.plus(met["tally"])
        for name, names in lists._asdict().items():
            if names:
                names.known |= met[f"{name}_known"]
        candidates += met["candidates"]
    lists.refuse_unknown(data)
    walks = 0

    def tables() -> Iterator[Candidates]:
        nonlocal walks
        walks += 1
        for number, file in enumerate(files):
            progress(f"walk {walks}", number, len(files))
            yield from read_part(file, CHUNK)[0]

    classes = len(open_vocabulary(settings).classes)
    with written(out, "index", about) as (make, stated):
        build(settings, tables, classes, make, id_type(data.samples))
        stated["tally"] = tally._asdict()
        stated["whole"] = is_whole(settings, candidates, tally)
