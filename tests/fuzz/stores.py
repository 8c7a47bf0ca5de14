"""What we write and read, damaged: refused, or named by `data verify`; what is taken is what it was."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import torch

from hpcscale.data.store import open_data
from hpcscale.files import Told
from hpcscale.models import checkpoint
from tests.fuzz import mutate
from tests.fuzz.harness import Case

READERS = (
    ("data", "info", "data", "--json"),
    ("data", "show", "data", "--out", "sheet.png", "--json"),
    ("labels", "build", "v.json", "--data", "data", "--parents", "tree.tsv"),
    ("dedup", "hash", "data", "new.h5", "--workers", 1),
)


def shards(case: Case) -> None:
    """A byte of a shard, or an entry of one of its tables."""
    case.copy("data", "tree.tsv")
    shard = case.random.choice(("data/shard-00000.h5", "data/shard-00001.h5"))
    if case.random.random() < 0.5:
        case.spoil(shard, mutate.data)
    else:
        _entry(case, case.place / shard)
    _read(case)


def _entry(case: Case, file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        names = [name for name in opened if opened[name].size]
        name = case.random.choice(names)
        table = opened[name]
        at = tuple(case.random.randrange(length) for length in table.shape)
        info = np.iinfo(table.dtype)
        value = case.random.choice((0, 1, info.max, info.min, info.max // 2, int(table[at]) + 1))
        case.note = f"{name}[{at}]: {table[at]} -> {value}"
        table[at] = np.array(value).astype(table.dtype, casting="unsafe")


def _read(case: Case) -> None:
    """Good as it was, or named."""
    same = all(
        (case.place / "data" / file.name).exists()
        and (case.place / "data" / file.name).read_bytes() == file.read_bytes()
        for file in (case.world / "data").iterdir()
        if file.name != ".lock"
    )
    named = case.run("data", "verify", "data").code != 0
    case.expect(named or same, "damaged, and whole")
    for words in READERS:
        case.run(*words)


def folders(case: Case) -> None:
    """The small files of a data set."""
    case.copy("data", "tree.tsv", "pictures")
    name = case.random.choice(("plan.json", "tags.jsonl", "manifest.jsonl", "quarantine.jsonl"))
    if case.random.random() < 0.1:
        (case.place / "data" / name).unlink()
        case.note = f"without {name}"
    elif not (case.place / "data" / name).read_bytes():
        (case.place / "data" / name).write_bytes(mutate.data(case.random, b'{"name": "x", "reason": "y"}\n'))
    else:
        case.spoil(f"data/{name}", mutate.document, binary=False)
    if _equal(case, name):
        return
    _read(case)
    case.run("data", "ingest", "pictures", "data", "--resize", 40, "--workers", 1, "--shard-samples", 5,
             writes=("data",))  # fmt: skip


def _equal(case: Case, name: str) -> bool:
    """Whether the change was none: other spaces in a JSON document say the same, and so does a manifest
    without the digests that older ones do not have."""
    try:
        old, new = ((place / "data" / name).read_bytes() for place in (case.world, case.place))
        if name.endswith(".json"):
            then, now = json.loads(old), json.loads(new)
            # Shards of format 2 may stand under a plan of format 1: an upgrade writes the plan last.
            return bool(then == now or (now["format"] == 1 and then == now | {"format": 2}))
        lines = ([json.loads(line) for line in text.splitlines()] for text in (old, new))
        pairs = list(zip(*lines, strict=True))
        if name == "manifest.jsonl":
            return all({"digest": was["digest"]} | line == was for was, line in pairs)
        return all(was == line for was, line in pairs)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def upgrades(case: Case) -> None:
    """A data set of format 1: it becomes the same data in format 2, or what is damaged is named."""
    case.copy("old")
    name = case.random.choice(sorted(file.name for file in (case.world / "old").iterdir()))
    if name.endswith(".h5") and case.random.random() < 0.5:
        _entry(case, case.place / "old" / name)
    else:
        case.spoil(f"old/{name}", mutate.data)
    if case.run("data", "upgrade", "old", writes=("old",)).code:
        return
    case.expect(case.run("data", "upgrade", "old", writes=("old",)).code == 0, "not twice")
    whole = case.run("data", "verify", "old").code == 0
    known, found = (open_data(place / "old") for place in (case.world, case.place))
    samples = np.arange(known.samples)
    same = (
        known.digest == found.digest
        and whole
        and all(
            np.array_equal(*pair) for pair in zip(known.jpegs(samples), found.jpegs(samples), strict=True)
        )
    )
    case.expect(same or not whole, "damaged, and whole")


def indexes(case: Case) -> None:
    """An index file: refused, or it leads to samples that there are."""
    case.copy("data", "vocabulary.json", "recipe.toml", "index.h5")
    case.spoil("index.h5", mutate.data)
    sampling = ("--set", f"sampling.name={case.random.choice(('natural', 'sqrt'))}")
    index = ("--set", "data.index=index.h5", *sampling, "--set", "train.steps=20")
    case.run("data", "plan", "recipe.toml", "--ranks", 1, *index)
    case.run("data", "index", "recipe.toml", "index.h5")


def codes(case: Case) -> None:
    """A hash file: refused, or it gives what it gave."""
    case.copy("a.h5", "b.h5")
    if case.random.random() < 0.7:
        case.spoil("a.h5", mutate.data)
    else:
        _entry(case, case.place / "a.h5")
    printed = case.run("dedup", "print", "a.h5")
    search = ("dedup", "search", "a.h5", "b.h5", "--radius", 60, "--min-quality", 0)
    found = case.run(*search, "--out", "new.tsv", "--threads", 1)
    if found.code == 0:
        case.expect(
            (case.place / "new.tsv").read_bytes() == (case.world / "pairs.tsv").read_bytes(), "other pairs"
        )
    if printed.code == 0:
        (case.place / "a.h5").write_bytes((case.world / "a.h5").read_bytes())
        case.expect(case.run("dedup", "print", "a.h5").data == printed.data, "other hashes")


def checkpoints(case: Case) -> None:
    """A record or tensors that are not what was written: refused, or never read."""
    case.copy("run")
    place = case.place / "run" / "checkpoints"
    if case.random.random() < 0.3:  # an older one, which may be gone back to
        checkpoint.save(
            case.place / "run", 4, {"fc.bias": torch.arange(5.0) + 1}, {"lr": torch.ones(3)}, {}, keep=3
        )
    file = case.random.choice(sorted(place.iterdir()))
    if file.suffix == ".json":
        case.spoil(f"run/checkpoints/{file.name}", mutate.document, binary=False)
    else:
        case.spoil(f"run/checkpoints/{file.name}", mutate.data)
    if _same_record(case, file):
        return
    good = {"step-00000002": 2, "step-00000004": 4}
    before = {path: path.read_bytes() for path in place.iterdir()}
    try:
        found = checkpoint.latest(case.place / "run")
        if found is not None:
            step = good.get(found.file.stem)
            case.expect(found.step == step, f"step {found.step} of {found.file.name}")
            case.expect(file.stem != found.file.stem, f"{file.name} is damaged and was taken")
            case.expect(hashlib.sha256(found.file.read_bytes()).hexdigest() == found.sha256, "another digest")
            model, _ = checkpoint.load(found)
            case.expect(
                model["fc.bias"].tolist() == [i + float(step == 4) for i in range(5)], "other numbers"
            )
    except Told:
        case.codes[1] += 1
    case.expect(before == {path: path.read_bytes() for path in place.iterdir()}, "a file was changed")
    case.run("evaluate", "run")


def _same_record(case: Case, file: Path) -> bool:
    other = case.world / "run" / "checkpoints" / file.name
    if not other.exists() or file.suffix != ".json":
        return other.exists() and other.read_bytes() == file.read_bytes()
    try:
        return bool(json.loads(other.read_bytes()) == json.loads(file.read_bytes()))
    except (ValueError, RecursionError):
        return False
