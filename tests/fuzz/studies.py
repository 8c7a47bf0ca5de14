"""Files of studies, and what lies in their folders, made bad: refused by name, or planned and told."""

import json
from pathlib import Path

from tests.fuzz import mutate, options
from tests.fuzz.harness import Case


def _record(cell: dict[str, str]) -> Path:
    folder = Path(cell["folder"])
    return folder.parent.parent / "cells" / cell["stage"] / f"{folder.name}.json"


def studies(case: Case) -> None:
    """The file, a key by --set, or the record of a cell; nothing is run."""
    case.copy("study.toml", "recipe.toml", "pictures")
    words: list[str] = []
    before = case.run("study", "status", "study.toml", "--json")
    cells = json.loads(before.out)
    for cell in cells[:3]:
        file = case.place / _record(cell)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"command": [], "digest": "x", "code": 1, "seconds": 1.0, "said": ["a"]}))
    kind = case.random.randrange(3)
    if kind == 0:
        case.spoil("study.toml", options.toml, binary=False)
    elif kind == 1:
        case.spoil(str(_record(cells[0])), mutate.document, binary=False)
    else:
        key = case.random.choice(
            ("axes.side", "given.pictures", "stages.pack.run", "skip", "report.at", "out")
        )
        value = case.random.choice((*mutate.WORDS, *(json.dumps(each) for each in mutate.HOSTILE)))
        words = ["--set", f"{key}={value}"]
        case.note = repr(words)[:300]
    case.run("study", "plan", "study.toml", *words, "--json")
    done = case.run("study", "status", "study.toml", *words, "--json")
    if done.code == 0:
        known = {"done", "failed", "running", "queued", "waiting", "missing"}
        case.expect({cell["state"] for cell in json.loads(done.out)} <= known, "another state")
    case.run("study", "report", "study.toml", *words, "--out", "new")
