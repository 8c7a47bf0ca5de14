"""What `hpcscale transfer` reads, made bad: its file, features, votes, labels, scores, lists, embeddings."""

import json
import math
from pathlib import Path

import numpy as np

from tests.fuzz import mutate, options
from tests.fuzz.harness import Case

METHODS = ("finetune", "search", "hyperrule", "probe")
SECTIONS = ("target", "grid", "search", "hyperrule", "probe", "data", "input", "train", "model", "schedule")


def transfers(case: Case) -> None:
    """The file of a transfer, or a key by --set; its data are not there, so that nothing is trained."""
    case.copy("transfer.toml", "vocabulary.json", "data", "run")
    words = []
    if case.random.random() < 0.6:
        case.spoil("transfer.toml", options.toml, binary=False)
    else:
        text = (case.place / "transfer.toml").read_text()
        known = [line.partition(" =")[0] for line in text.splitlines() if " = " in line]
        key = f"{case.random.choice(SECTIONS)}.{case.random.choice(known)}"
        value = case.random.choice((*mutate.WORDS, *(json.dumps(each) for each in mutate.HOSTILE)))
        words = ["--set", f"{key}={value}"]
        case.note = repr(words)[:300]
    source = case.random.choice(("random", "run", "run/checkpoints/step-00000002.safetensors", "recipe.toml"))
    for method in METHODS:
        done = case.run("transfer", method, source, "--config", "transfer.toml", "--out", "new", *words,
                        "--set", "data.train=nowhere")  # fmt: skip
        case.expect(done.code in (1, 2), f"{method}: exit code {done.code} without data")
        case.expect(done.code == 1 or not (case.place / "new").exists(), f"{method}: a folder was made")


def features(case: Case) -> None:
    """Arrays of features: refused, or a probe of finite numbers."""
    case.copy("train.npz", "test.npz")
    name = case.random.choice(("train.npz", "test.npz"))
    if case.random.random() < 0.4:
        case.spoil(name, mutate.data)
    else:
        _array(case, case.place / name)
    probe = ("transfer", "probe", "--features", "train.npz", "--test", "test.npz", "--l2", "0.1", "--out")
    solver = case.random.choice(("lbfgs", "sgd"))
    done = case.run(*probe, "new.npz", "--solver", solver, "--knn", 2, "--json")
    if done.code == 0:
        found = json.loads(done.out)
        numbers = [value for value in found.values() if isinstance(value, int | float)]
        case.expect(all(math.isfinite(number) for number in numbers), "a number that is none")
        before = (case.place / "new.npz").read_bytes()
        case.run(*probe, "new.npz", "--solver", solver)
        case.expect((case.place / "new.npz").read_bytes() == before, "the same command gave other bytes")


def _array(case: Case, file: Path) -> None:
    with np.load(file) as stored:
        arrays = dict(stored)
    name = case.random.choice("xy")
    array = arrays[name]
    change = case.random.randrange(6)
    if change == 0:
        del arrays[name]
    elif change == 1:
        arrays[name] = array[: case.random.choice((0, 1, 2, -1))]
    elif change == 2:
        kind = case.random.choice(("f2", "f4", "f8", "i1", "u8", "?", "U3", "c8", "M8[s]", "S2"))
        with np.errstate(all="ignore"):
            arrays[name] = array.astype("i8").astype(kind)
    elif change == 3:
        arrays[name] = case.random.choice((array[None], array.reshape(-1), np.array(1.0), array[..., :0]))
    elif array.dtype.kind == "f":
        odd = case.random.choice((math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0))
        arrays[name] = np.full_like(array, odd) if change == 4 else array.copy()
        arrays[name].flat[0] = odd
    else:
        arrays[name] = array.copy()
        arrays[name].flat[0] = case.random.choice((-1, 99, 2**31 - 1, 2**31, 2**62))
    case.note = f"{file.name}: {name}: change {change}"
    np.savez(file, **arrays)


def judgements(case: Case) -> None:
    """Votes, reassessed labels, scores: refused by name, or a share."""
    case.copy("run", "votes.csv", "real.json", "thousand.txt", "scores.json")
    name = case.random.choice(("votes.csv", "real.json", "thousand.txt", "scores.json"))
    json_ = name.endswith("json") and case.random.random() < 0.7
    case.spoil(name, mutate.document if json_ else mutate.text, binary=False)
    done = case.run("transfer", "raters", "import", "run", "votes.csv", "--least", 2, "--json")
    if done.code == 0:
        found = json.loads(done.out)
        case.expect(0 <= found["raw_accuracy"] <= found["rectified_accuracy"] <= 1, "not a rectified share")
    case.run("transfer", "raters", "import", "run", "--real", "real.json", "--classes", "thousand.txt")
    done = case.run("transfer", "tasks", "--scores", "scores.json", "--partial", "--json")
    if done.code == 0 and (mean := json.loads(done.out)["mean"]) is not None:
        case.expect(0 <= mean <= 1, f"a mean of {mean}")


def galleries(case: Case) -> None:
    """Embeddings and evaluations for the page of mistakes, and lists of a task's splits."""
    case.copy("run", "data", "embeddings.h5", "task")
    evaluation = "run/evaluations/held_out-00000002"
    name = case.random.choice(
        ("embeddings.h5", f"{evaluation}/samples.npz", f"{evaluation}/metrics.json", "task/train800.txt",
         "task/test.txt", "run/config.json")
    )  # fmt: skip
    how = {".json": mutate.document, ".txt": mutate.text}.get(Path(name).suffix, mutate.data)
    case.spoil(name, how, binary=how is mutate.data)
    near = ("--embeddings", "embeddings.h5", "--training", "embeddings.h5")
    for words in (
        ("mistakes", "run", "new.html", *near),
        ("mistakes", "run", "--against", "run", "--json"),
        ("raters", "export", "run", "new"),
        ("layout", "task", "new-split", "--task", "Caltech101"),
    ):
        case.run("transfer", *words)
