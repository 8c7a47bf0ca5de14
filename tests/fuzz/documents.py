"""Files that people write: manifests, hierarchies, pairs, decisions; and vocabularies, which we write."""

import json
from pathlib import Path

from hpcscale.data.named import NameList
from hpcscale.data.store import open_data
from hpcscale.files import Told
from hpcscale.labels import vocabulary
from tests.fuzz import mutate, world
from tests.fuzz.harness import Case, snapshot


def manifests(case: Case) -> None:
    case.copy("pictures", "tree.tsv")
    name = case.random.choice(("manifest.jsonl", "manifest.csv", "manifest.tsv"))
    if name != "manifest.jsonl":
        case.copy(name)
        how = mutate.text
    else:
        (case.place / name).write_bytes((case.place / "pictures" / name).read_bytes())
        how = mutate.document if case.random.random() < 0.6 else mutate.text
    for _ in range(case.random.choice((1, 1, 1, 3))):
        try:
            case.spoil(name, how, binary=False)
        except (UnicodeDecodeError, ValueError):
            break
    ingest = ("data", "ingest", "pictures", "packed", "--manifest", name, "--workers", 1, "--resize", 16)
    done = case.run(*ingest, writes=("packed",))
    if done.code == 0:
        kept = whole(case, "packed")
        case.run("data", "show", "packed", "--out", "sheet.png", "--json")
        before = snapshot(case.place / "packed")
        case.run(*ingest)
        case.expect(snapshot(case.place / "packed") == before, "the same command gave other bytes")
        case.expect(kept <= max(world.PICTURES * 3, 30), f"{kept} samples")
    labels = ("labels", "build", "v.json", "--manifest", name, "--parents", "tree.tsv")
    if case.run(*labels).code == 0:
        vocabulary.load(case.place / "v.json")


def whole(case: Case, folder: str) -> int:
    """That a finished data set verifies. Returns its samples."""
    done = case.run("data", "verify", folder)
    case.expect(done.code == 0, f"just packed, and not whole: {done.err[:200]}")
    info = json.loads(case.run("data", "info", folder, "--json").out)
    return int(info["samples"])


def vocabularies(case: Case) -> None:
    """A vocabulary that is refused, or reads as it stands; hierarchies and lists of wnids."""
    case.copy("vocabulary.json", "tree.tsv", "data", "wnids.txt")
    if case.random.random() < 0.5:
        case.spoil("vocabulary.json", mutate.document, binary=False)
        for words in ([], ["apple"], ["--json"]):
            done = case.run("labels", "show", "vocabulary.json", *words)
        if done.code == 0:
            file = case.place / "vocabulary.json"
            found = vocabulary.load(file)
            vocabulary.save(found, case.place / "again.json")
            case.expect(vocabulary.load(case.place / "again.json") == found, "it does not read back the same")
        return
    file = case.random.choice(("tree.tsv", "tree.csv", "tree.jsonl"))
    if file != "tree.tsv":
        pairs = [line.split("\t") for line in (case.place / "tree.tsv").read_text().splitlines()]
        rows = [{"class": pair[0], "parents": pair[1:]} for pair in pairs]
        lines = [
            json.dumps(row) if file.endswith("jsonl") else ",".join(pair)
            for row, pair in zip(rows, pairs, strict=True)
        ]
        (case.place / file).write_text("\n".join(lines) + "\n")
    case.spoil(file, mutate.document if file.endswith("jsonl") else mutate.text, binary=False)
    labels = ("labels", "build", "v.json", "--data", "data", "--parents", file)
    done = case.run(*labels)
    if done.code == 0:
        before = (case.place / "v.json").read_bytes()
        case.run(*labels)
        case.expect((case.place / "v.json").read_bytes() == before, "the same command gave other bytes")


def pairs(case: Case) -> None:
    case.copy(
        "pairs.tsv", "pairs.tsv.json", "decisions.jsonl", "pictures", "data", "run", "drop.txt", "recipe.toml"
    )
    which = case.random.choice(("pairs.tsv", "pairs.tsv.json", "decisions.jsonl", "drop.txt"))
    how = mutate.document if "json" in which and case.random.random() < 0.6 else mutate.text
    case.spoil(which, how, binary=False)
    if which == "drop.txt":
        try:
            data, names = open_data(case.place / "data"), NameList(case.place / "drop.txt")
            for index in range(len(data.entries)):
                names.rows(data, index)
            names.refuse_unknown(data)
        except Told:
            case.codes[1] += 1
        return
    calls = (
        ("dedup", "drop", "pairs.tsv", "--side", "within", "--decisions", "decisions.jsonl", "--out",
         "new.txt"),
        ("dedup", "drop", "pairs.tsv", "--side", "a", "--out", "new-a.txt"),
        ("dedup", "gallery", "pairs.tsv", "new.html", "--a", "pictures", "--b", "data", "--decisions",
         "decisions.jsonl"),
        ("dedup", "audit", "run", "--pairs", "pairs.tsv", "--decisions", "decisions.jsonl", "--json"),
        ("dedup", "decisions", "merge", "decisions.jsonl", "--out", "new.jsonl"),
    )  # fmt: skip
    for call in calls:
        done = case.run(*call)
        if done.code == 0 and call[-1].startswith("new"):
            before = Path(call[-1]).read_bytes()
            case.run(*call)
            case.expect(Path(call[-1]).read_bytes() == before, "the same command gave other bytes")
