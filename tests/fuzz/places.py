"""Where things lie: other kinds of files, outputs that are a user's, names, locales."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from random import Random

from tests.fuzz import mutate
from tests.fuzz.harness import Case, Problem, snapshot
from tests.fuzz.pictures import stored

# Commands, with a star before each file or folder that they read.
READERS = (
    "data ingest *pictures packed --workers 1 --manifest *manifest.csv",
    "data info *data",
    "data verify *data",
    "data show *data --out NEW.png",
    "data upgrade *data",
    "labels build NEW.json --data *data --parents *tree.tsv",
    "labels build NEW.json --manifest *manifest.csv --parents *tree.tsv",
    "labels build NEW.json --data *data --select *wnids.txt",
    "labels show *vocabulary.json",
    "labels stats *vocabulary.json --data *data",
    "labels noise *run --clusters 1 --bins 1 --out NEW.html",
    "labels precision *data --vocabulary *vocabulary.json --sample 4 --out NEW.html",
    "dedup hash *pictures NEW.h5 --workers 1",
    "dedup hash *data NEW.h5 --workers 1",
    "dedup hash *tars NEW.h5 --workers 1",
    "dedup print *a.h5",
    "dedup search *a.h5 *b.h5 --out NEW.tsv",
    "dedup drop *pairs.tsv --side a --decisions *decisions.jsonl --out NEW.txt",
    "dedup gallery *pairs.tsv NEW.html --a *pictures --b *data --decisions *decisions.jsonl",
    "dedup decisions merge *decisions.jsonl --out NEW.jsonl",
    "dedup audit *run --pairs *pairs.tsv",
    "dedup embed *data NEW.h5 --checkpoint *run",
    "dedup calibrate *pictures NEW --samples 4 --workers 1",
    "train NEW --config *recipe.toml --set data.train=nowhere",
    "transfer finetune *run --config *transfer.toml --out NEW --set data.train=nowhere",
    "transfer probe random --config *transfer.toml --out NEW --set data.train=nowhere",
    "transfer probe --features *train.npz --test *test.npz --l2 0.1",
    "transfer tasks --scores *scores.json --partial",
    "transfer layout *task NEW",
    "transfer layout *data NEW --train 2 --val 2 --vocabulary *vocabulary.json",
    "transfer mistakes *run NEW.html --data *data --embeddings *embeddings.h5 --training *embeddings.h5",
    "transfer raters export *run NEW --data *data",
    "transfer raters import *run *votes.csv --real *real.json --classes *thousand.txt",
    "robustness compose *objects *backgrounds NEW",
    "evaluate *run",
    "evaluate-results --kind masks --annotations *coco.json --results *masks.json --drop *drop-results.txt",
    "evaluate-results --kind voc --annotations *xml --results *voc.json",
    "evaluate-results --kind segmentation --annotations *maps --results *found-maps",
    "report *detector",
    "study plan *study.toml",
    "study status *study.toml",
    "report *run",
    "image info *image.sif",
    "image verify *image.sif",
    "submit --dry-run --site *site.toml -- report run",
    "doctor . --site *site.toml",
)
MADE = ("run/report.md", "run/report-curves.png", "run/report-pictures-held_out.png", "packed", "NEW")


def kinds(case: Case) -> None:
    """In the place of a file that is read, something else: nothing waits, nothing is lost."""
    case.copy()
    words = case.random.choice(READERS).split()
    named = [word[1:] for word in words if word.startswith("*")]
    target = case.place / case.random.choice(named)
    if target.is_dir():
        inside = sorted(path for path in target.rglob("*") if path.is_file())
        target = case.random.choice([target, *inside])
    kind = case.random.choice(
        ("pipe", "device", "folder", "loop", "no rights", "missing", "empty", "dangling", "socket")
    )
    case.note = f"{target.relative_to(case.place)}: {kind}"
    _replace(target, kind)
    case.run(*(word.removeprefix("*") for word in words), writes=MADE)


def _replace(path: Path, kind: str) -> None:
    if kind == "no rights":
        path.chmod(0)
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "empty":
        path.touch()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
        os.chdir(here)


WRITERS = (
    ("data show data --out OUT", ""),
    ("labels build OUT --data data --parents tree.tsv", ""),
    ("labels build OUT --data data --parents tree.tsv --force", ""),
    ("labels stats vocabulary.json --data data --out OUT", "/stats.json"),
    ("labels stats vocabulary.json --data data --out OUT", "/labels.png"),
    ("labels noise run --clusters 1 --bins 1 --out OUT", ""),
    ("labels precision data --vocabulary vocabulary.json --sample 4 --out OUT", ""),
    ("dedup hash pictures OUT --workers 1", ""),
    ("dedup search a.h5 b.h5 --radius 60 --out OUT", ""),
    ("dedup drop pairs.tsv --side a --out OUT", ""),
    ("dedup gallery pairs.tsv OUT --a pictures --b data", ""),
    ("dedup decisions merge decisions.jsonl --out OUT", ""),
    ("dedup calibrate pictures OUT --samples 4 --workers 1", "/calibration.md"),
    ("dedup calibrate pictures OUT --samples 4 --workers 1", "/calibration.png"),
    ("report run run2 --out OUT.md", ".md"),
    ("report run run2 --out OUT.md", "-curves.png"),
    ("report run", "run/report.md"),
    ("data ingest pictures OUT --workers 1", "/manifest.jsonl"),
    ("data ingest pictures OUT --workers 1", "/photo.tmp"),
    ("data ingest pictures OUT --workers 1", "/.lock-0-2"),
    ("data ingest pictures OUT --workers 1", "/plan.json"),
    ("data ingest pictures OUT --workers 1", "/shard-00000.h5"),
    ("dedup hash pictures OUT --workers 1", ".parts/mine.txt"),
    ("dedup search a.h5 b.h5 --out OUT", ".parts/mine.tmp"),
    ("dedup search a.h5 b.h5 --out OUT", ".tmp"),
    ("transfer finetune run --config transfer.toml --out OUT --set data.train=none", "/transfer.json"),
    ("transfer finetune random --config transfer.toml --out OUT --set data.train=none", "/trials.jsonl"),
    ("transfer search run --config transfer.toml --out OUT --set data.train=none", "/curve.csv"),
    ("transfer hyperrule run --config transfer.toml --out OUT --set data.train=none", "/transfer.json"),
    ("transfer probe random --config transfer.toml --out OUT --set data.train=none", "/transfer.json"),
    (
        "transfer probe random --config transfer.toml --out OUT --set data.train=nowhere",
        "/last-0/config.json",
    ),
    ("transfer probe --features train.npz --l2 0.1 --out OUT.npz", ".npz"),
    ("transfer layout task OUT", "/split.json"),
    ("transfer layout data OUT --train 2 --val 2", "/train2.txt"),
    ("transfer sprites OUT --count 2", "/manifest.jsonl"),
    ("transfer mistakes run OUT", ""),
    ("transfer raters export run OUT", "/votes.csv"),
    ("transfer raters export run OUT", "/page.html"),
    ("robustness compose objects backgrounds OUT", "/manifest.jsonl"),
    ("robustness compose objects backgrounds OUT", "/pictures/dog/0/sea.jpg"),
    ("robustness compose objects backgrounds OUT", "/photo.tmp"),
    ("train OUT --config recipe.toml", "/log.jsonl"),
    ("train OUT --config recipe.toml", "/config.json"),
    ("evaluate run", "run/evaluations/mine.txt"),
)


def outputs(case: Case) -> None:
    """An output that is there, and is a user's, or an input."""
    case.copy()
    shutil.copytree("run", "run2")
    command, ending = case.random.choice(WRITERS)
    if case.random.random() < 0.4 and "OUT" in command:  # an input as the output
        names = sorted(str(path.relative_to(case.place)) for path in case.place.rglob("*"))
        out = case.random.choice(names)
        case.note = f"an input: {out}"
        before = snapshot(case.place)
        case.run(*(word.replace("OUT", out) for word in command.split()), writes=(*MADE, *_reports()))
        case.unharmed(before, (*_reports(), "data/.lock"))
        return
    victim = case.place / (ending if ending.startswith("run/") else f"NEW{ending}")
    victim.parent.mkdir(parents=True, exist_ok=True)
    content = case.random.choice(
        (b"the work of a week\n", b"a\tb\t3\n", b'{"a": 1}\n', b"\x89PNG\r\n\x1a\n" + bytes(99))
    )
    victim.write_bytes(content)
    case.note = f"{victim.relative_to(case.place)}: {content!r}"
    case.run(*(word.replace("OUT", "NEW") for word in command.split()), writes=_reports())
    case.expect(victim.exists() and victim.read_bytes() == content, f"{victim.name} is gone")


def _reports() -> tuple[str, ...]:
    return tuple(f"{run}/{name.partition('/')[2]}" for run in ("run", "run2") for name in MADE[1:3])


def names(case: Case) -> None:
    """Names of pictures, folders and tags that are hard to write, through the whole chain."""
    case.copy("pictures", "tree.tsv")
    odd = [_name(case.random) for _ in range(3)]
    case.note = repr(odd)
    folder = case.place / "classes"
    for i, name in enumerate(odd):
        place = folder / (name if case.random.random() < 0.5 else f"class{i}")
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name[:200]}.jpg").write_bytes((case.world / "pictures" / f"{i}.jpg").read_bytes())
        except OSError:  # too long for this file system
            continue
    if not list(folder.rglob("*.jpg")):
        return
    count = sum(path.is_file() for path in folder.rglob("*"))
    done = case.run("data", "ingest", "classes", "packed", "--workers", 1, writes=("packed",))
    if done.code == 0 and not any(part.startswith(".") for path in folder.rglob("*") for part in path.parts):
        stored(case, "packed", count)
    case.run(
        "labels", "build", "v.json", "--data", "packed", "--parents", "tree.tsv"
    ) if done.code == 0 else None
    for words in (
        ("dedup", "hash", "classes", "h.h5", "--workers", 1),
        ("dedup", "print", "h.h5"),
        ("dedup", "search", "h.h5", "--radius", 256, "--min-quality", 0, "--out", "p.tsv"),
        ("dedup", "drop", "p.tsv", "--side", "within", "--out", "d.txt"),
        ("dedup", "gallery", "p.tsv", "g.html", "--a", "classes"),
    ):
        case.run(*words)
    first = case.run("dedup", "drop", "p.tsv", "--side", "within", "--out", "d.txt")
    case.expect(first.code == 0, f"what search wrote, drop does not read: {first.err[:200]}")


def _name(random: Random) -> str:
    words = [
        word for word in mutate.HOSTILE if isinstance(word, str) and "\0" not in word and "/" not in word
    ]
    word = random.choice(
        [*words, "\udcff\udcfe", "con.", "a\rb", "-rf", "*.jpg", "\N{SNOWMAN}", "ﬁ", "A\u030a"]
    )
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        word = "\udcff"
    return word if word not in ("", ".", "..") else "x"


def locales(case: Case) -> None:
    """A real process, where the locale knows ASCII alone and paths are not UTF-8."""
    case.copy()
    odd = case.place / os.fsdecode(random_bytes(case.random))
    os.rename(case.place / "pictures", odd)
    call = case.random.choice(
        (
            ["data", "ingest", odd, "packed", "--workers", "1"],
            ["dedup", "hash", odd, "new.h5", "--workers", "1"],
            ["dedup", "gallery", "pairs.tsv", "g.html", "--a", odd],
            ["transfer", "probe", odd, "--config", odd],
            [
                "transfer",
                "probe",
                "random",
                "--config",
                "transfer.toml",
                "--out",
                odd,
                "--set",
                "data.train=nowhere",
            ],
            ["transfer", "layout", odd, "new"],
            ["transfer", "sprites", odd / "new", "--count", "2"],
            ["transfer", "mistakes", odd],
            ["transfer", "raters", "import", "run", odd],
            ["robustness", "compose", odd, odd, "new", "--without-attribution"],
            ["labels", "show", odd],
            ["report", odd],
            ["data", "info", odd],
            ["dedup", "print", odd / "x"],
        )
    )
    case.note, case.last = repr(odd.name), tuple(call)
    strict = {"LC_ALL": case.random.choice(("C", "POSIX")), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | strict | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "hpcscale", *call], capture_output=True, env=environment, check=False
    )
    case.codes[done.returncode] += 1
    if b"Traceback" in done.stderr or done.returncode not in (0, 1, 2, 75):
        raise Problem("traceback", f"exit code {done.returncode}: {done.stderr[-300:]!r}")


def random_bytes(random: Random) -> bytes:
    return random.choice((b"p\xffq", b"p\xc3\xa9q", b"\xe2\x98\x83", b"plain", b"a\xed\xb3\xbfb"))
