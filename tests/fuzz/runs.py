"""Run folders as report, audit and evaluate see them, and what jobs left in them."""

import csv
import json
from random import Random

import numpy as np

from tests.fuzz import mutate
from tests.fuzz.harness import Case

EVALUATION = "run/evaluations/held_out-00000002"
REPORT = ("run/report.md", "run/report-curves.png", "run/report-pictures-held_out.png")


def runs(case: Case) -> None:
    case.copy("run", "pairs.tsv", "pairs.tsv.json")
    kind = case.random.randrange(6)
    if kind == 0:
        case.spoil("run/log.jsonl", mutate.document, binary=False)
    elif kind == 1:
        case.spoil(f"{EVALUATION}/metrics.json", mutate.document, binary=False)
    elif kind == 2:
        case.spoil(f"{EVALUATION}/classes.csv", mutate.text, binary=False)
    elif kind == 3:
        case.spoil(f"{EVALUATION}/{case.random.choice(('samples', 'thumbnails'))}.npz", mutate.data)
    elif kind == 4:
        _arrays(case)
    else:
        _named(case)
    first = case.run("report", "run", writes=REPORT)
    if first.code == 0:
        before = (case.place / "run" / "report.md").read_bytes()
        case.expect(b"<script" not in before and b"<b>" not in before, "HTML in the report")
        case.run("report", "run", writes=REPORT)
        case.expect(
            (case.place / "run" / "report.md").read_bytes() == before, "the same command gave other bytes"
        )
    case.run("dedup", "audit", "run", "--pairs", "pairs.tsv", "--json")


def _arrays(case: Case) -> None:
    """One array of another length, type or content; or of a size that nobody has."""
    file = case.place / EVALUATION / "samples.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    name = case.random.choice(sorted(arrays))
    array = arrays[name]
    change = case.random.randrange(5)
    if change == 0:
        del arrays[name]
    elif change == 1:
        arrays[name] = array[:-1]
    elif change == 2:
        kinds = ("f8", "i1", "U3", "c8") if array.dtype.kind in "iuf" else ("U3", "S9")
        with np.errstate(all="ignore"):
            arrays[name] = array.astype(case.random.choice(kinds))
    elif change == 3:
        arrays[name] = array.reshape(-1)[:1] if array.ndim > 1 else np.stack([array, array])
    elif array.dtype.kind in "if":
        arrays[name] = array.copy()
        arrays[name].flat[0] = case.random.choice((-1, 99, 2**31 - 1))
    case.note = f"{name}: change {change}"
    np.savez(file, **arrays)


def _named(case: Case) -> None:
    """A run, or a class, with a name that is hard to show."""
    odd = case.random.choice([word for word in mutate.WORDS if 0 < len(word) < 200])
    rows = list(csv.reader((case.place / EVALUATION / "classes.csv").open(newline="")))
    rows[case.random.randrange(1, len(rows))][1] = odd
    with (case.place / EVALUATION / "classes.csv").open("w", newline="", errors="surrogatepass") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    case.note = f"class {odd!r}"


def jobs(case: Case) -> None:
    """Records of jobs, logs and attempts that are damaged."""
    case.copy("run", "site.toml", "image.sif", "image.sif.json")
    folder = case.place / "run" / "jobs"
    folder.mkdir()
    record = {
        "job": "7", "command": ["report", "run"], "cwd": str(case.place), "site": {"image": "image.sif"},
        "request": {"site": str(case.place / "site.toml"), "nodes": 1, "ranks_per_node": None, "time": None,
                    "after": [], "array": None},
        "submitted": 1, "commit": "abc", "array": None, "config": None,
    }  # fmt: skip
    (folder / "7.json").write_text(json.dumps(record))
    (folder / "7.sbatch").write_text("#!/bin/bash\n")
    (folder / "7.out").write_text("hello\n")
    attempt = folder / "7.0"
    attempt.mkdir()
    (attempt / "exit.0").write_text("0")
    (attempt / "attempt.json").write_text(json.dumps({"begin": 1.0, "nodes": "n1", "verdict": "retry"}))
    name = case.random.choice(
        ("7.json", "7.json", "7.out", "7.0/exit.0", "7.0/attempt.json", "x.json", "7_1.json")
    )
    if (folder / name).exists():
        case.spoil(
            f"run/jobs/{name}",
            mutate.document if name.endswith("json") else mutate.data,
            binary=not name.endswith("json"),
        )
    else:
        (folder / name).write_bytes(mutate.document(case.random, json.dumps(record)))
    calls = ("status run", "status run --json", "logs run", "cancel run", "resubmit run --dry-run")
    for words in (
        *(call.split() for call in calls),
        ["resubmit", "run", "--job", _job(case.random), "--dry-run"],
    ):
        case.run(*words, writes=("run/jobs",) if words[0] == "resubmit" else ())


def _job(random: Random) -> str:
    return random.choice(("7", "8", "7_1", "", "../7", "x", "7\n", "9" * 400))
