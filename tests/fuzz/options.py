"""What is typed: values of options, keys of a recipe by --set and in TOML, site files."""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale import config
from hpcscale.cli import main
from hpcscale.cluster import site
from hpcscale.files import Told
from tests.fuzz import mutate
from tests.fuzz.harness import Case

# A good call of every command that is quick; NEW is where it writes.
CALLS = (
    "data ingest pictures NEW --workers 1",
    "data info data",
    "data list",
    "data verify data",
    "data show data --out NEW.png",
    "data plan recipe.toml --ranks 2 --steps 2",
    "data upgrade old",
    "models list",
    "models show resnet50 --classes 5 --batch 2",
    "labels build NEW.json --data data --parents tree.tsv",
    "labels classes vocabulary.json --with classes.txt --most 1 --out NEW.txt",
    "labels show vocabulary.json apple",
    "labels stats vocabulary.json --data data --out NEW",
    "labels noise run --clusters 1 --bins 1 --out NEW.html",
    "labels precision data --vocabulary vocabulary.json --sample 4 --out NEW.html",
    "dedup hash pictures NEW.h5 --workers 1",
    "dedup print a.h5",
    "dedup search a.h5 b.h5 --out NEW.tsv",
    "dedup drop pairs.tsv --side a --out NEW.txt",
    "dedup gallery pairs.tsv NEW.html --a pictures --b data",
    "dedup decisions merge decisions.jsonl --out NEW.jsonl",
    "dedup audit run --pairs pairs.tsv",
    "dedup embed data NEW.h5 --checkpoint run",
    "transfer probe --features train.npz --test test.npz --l2 0.1 --knn 2 --out NEW.npz",
    "transfer tasks --scores scores.json --partial",
    "transfer layout task NEW",
    "transfer layout data NEW --train 2 --val 2",
    "transfer sprites NEW --count 2",
    "transfer mistakes run NEW.html --embeddings embeddings.h5 --training embeddings.h5",
    "transfer raters export run NEW",
    "transfer raters import run votes.csv",
    "robustness compose objects backgrounds NEW",
    "evaluate-results --kind boxes --annotations coco.json --results boxes.json --drop drop-results.txt",
    "report run",
    "report detector",
    "study plan study.toml",
    "study status study.toml",
    "study report study.toml --out NEW",
    "papers fill papers.toml NEW",
    "papers draw sun2017-5 points.csv NEW-drawn",
    "image info image.sif",
    "image verify image.sif",
    "status run",
    "logs run",
    "cancel run",
    "resubmit run",
    "submit --dry-run --site site.toml -- report run",
    "doctor . --site site.toml",
)
WRITTEN = (
    "NEW",
    "run/report.md",
    "run/report-curves.png",
    "run/report-pictures-held_out.png",
    "data/.lock",
    "old",
)


def options(case: Case) -> None:
    """One or two options or arguments of a command are odd."""
    case.copy()
    words = case.random.choice(CALLS).split()
    command = _command(words)
    kinds = [each for each in command.params if each.name != "help"]
    for _ in range(case.random.choice((1, 1, 2))):
        parameter = case.random.choice(kinds)
        value = case.random.choice(mutate.WORDS)
        if isinstance(parameter, click.Option):
            name = case.random.choice([*parameter.opts, *parameter.secondary_opts])
            flag = parameter.is_flag and case.random.random() < 0.5
            at = words.index("--") if "--" in words else len(words)
            words[at:at] = [name] if flag else [name, value]
        else:
            at = case.random.randrange(1, len(words))
            words[at] = value
    done = case.run(*words, writes=("packed", *_new(case), *WRITTEN))
    case.note = repr(words)
    case.expect(done.code != 70, "70")


def _command(words: list[str]) -> click.Command:
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, words
        command = found
    return command


def _new(case: Case) -> list[str]:
    """Files that a command may have been told to write, and that were not there."""
    return [
        f"NEW{ending}"
        for ending in (".png", ".svg", ".json", ".h5", ".tsv", ".txt", ".html", ".jsonl", ".npz")
    ]


def keys(settings: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in settings.items():
        found += keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def settings(case: Case) -> None:
    """--set of every key, to odd values. What is accepted comes back of config.json as it was."""
    case.copy("recipe.toml", "vocabulary.json")
    known = keys(config.load(case.place / "recipe.toml", []).model_dump(mode="json"))
    words = []
    for _ in range(case.random.choice((1, 1, 1, 2))):
        key = case.random.choice([*known, "train", "x.y", "", "train.steps.x", "data.train\n"])
        value = case.random.choice(
            (*mutate.WORDS, *(str(each) for each in mutate.HOSTILE), '"x"', "0.1", "2")
        )
        words.append(case.random.choice((f"{key}={value}", f"{key} = {value}", f"{key}={json.dumps(value)}")))
    words = [word for word in words if "\0" not in word]
    case.note = repr(words)[:300]
    _round_trip(case, words)
    sets = [part for word in words for part in ("--set", word)]
    _train(case, sets)


def _train(case: Case, words: list[str]) -> None:
    """Without its data: what is wrong with a recipe comes first, and nothing is made."""
    done = case.run("train", "new", "--config", "recipe.toml", "--set", "data.train=nowhere", *words)
    case.expect(done.code in (1, 2), f"exit code {done.code} without data")
    if done.code == 2:
        case.expect(not (case.place / "new").exists(), "a run folder was made for a wrong recipe")


def _round_trip(case: Case, overrides: list[str]) -> None:
    try:
        found = config.load(case.place / "recipe.toml", overrides)
    except Told:
        return
    text = config.dump(found)
    file = case.place / "config.json"
    file.write_text(text)
    try:
        again = config.read(file)
    except Told as error:
        case.expect(False, f"accepted, but config.json is refused: {error}")
        return
    case.expect(again == found and config.dump(again) == text, "config.json says something else")
    file.unlink()


def recipes(case: Case) -> None:
    """A recipe or a config.json that is no good document."""
    case.copy("recipe.toml", "vocabulary.json")
    if case.random.random() < 0.5:
        case.spoil("recipe.toml", toml, binary=False)
        _round_trip(case, [])
        _train(case, [])
        return
    case.copy("run")
    case.spoil("run/config.json", mutate.document, binary=False)
    for words in (["report", "run"], ["evaluate", "run"], ["dedup", "audit", "run", "--pairs", "none.tsv"]):
        case.run(*words, writes=("run",))


def catalogues(case: Case) -> None:
    """A catalogue, or a list of classes, that is no good document."""
    case.copy("recipe.toml", "catalogue.toml", "classes.txt", "vocabulary.json", "data")
    if case.random.random() < 0.3:
        case.spoil("classes.txt", mutate.text, binary=False)
        done = case.run("labels", "classes", "vocabulary.json", "--with", "classes.txt", "--out", "NEW.txt")
        case.expect(
            done.code != 0 or (case.place / "NEW.txt").read_text().startswith("# hpcscale"), "no list"
        )
    else:
        case.spoil("catalogue.toml", toml, binary=False)
        _round_trip(case, [f"data.train={case.random.choice(('train-web-8-5', 'web-8-5', 'val-web-1.5k'))}"])
        _train(case, [])
    done = case.run("data", "list", "--json")
    case.expect(done.code != 0 or "entries" in json.loads(done.out), "not listed")


def toml(random: Any, text: str) -> bytes:
    """A TOML document with something wrong."""
    lines = text.splitlines()
    kind = random.randrange(6)
    if kind == 0:
        return mutate.text(random, text)
    if kind == 1:
        at = random.choice([i for i, line in enumerate(lines) if "=" in line])
        key, _, _ = lines[at].partition("=")
        lines[at] = f"{key}= {json.dumps(random.choice(mutate.HOSTILE))}"
    elif kind == 2:
        lines.insert(random.randrange(len(lines)), f"x = {json.dumps(random.choice(mutate.HOSTILE))}")
    elif kind == 3:
        deep = random.choice(
            ("[" * 3000 + "]" * 3000, "{a=" * 2000 + "1" + "}" * 2000, "9" * 6000, "1e" + "9" * 400)
        )
        lines.append(f"steps = {deep}")
    elif kind == 4:
        lines.append(".".join(["a"] * random.choice((2, 3000))) + " = 1")
    else:
        lines.append(f"[{json.dumps(str(random.choice(mutate.HOSTILE)))}]\nx = 1")
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def sites(case: Case) -> None:
    """Site files: as TOML, and by what a job script is made of them."""
    case.copy("recipe.toml", "site.toml", "run", "pictures", "data", "vocabulary.json")
    case.copy("image.sif", "image.sif.json")
    case.spoil("site.toml", _site, binary=False)
    for words in (["report", "run"], ["train", "new", "--config", "recipe.toml"]):
        done = case.run("submit", "--dry-run", "--site", "site.toml", "--", *words)
        if done.code == 0:
            case.expect(done.out.startswith("#!"), "no script")
    case.run("doctor", ".", "--site", "site.toml")


def _site(random: Any, text: str) -> bytes:
    example = Path(site.__file__).parents[2] / "slurm" / "sites" / "example.toml"
    return toml(random, random.choice((text, example.read_text())))
