"""`python -m benchmarks.scale`: what training on 3.5e9 samples with 336 ranks costs a rank, without pictures.

It makes a data set of which only the shards are missing (synthetic.py), and an index of a tenth of it with
a quarter of all labels wrong. Then it measures fresh processes that do what a rank does before it reads:
memory, time to plan a batch, how even the ranks are, and whether half as many ranks go on with the same
samples. Prints tables, and exits with 1 where a limit is broken.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import synthetic
from benchmarks.__main__ import machine
from benchmarks.synthetic import World
from hpcscale import config
from hpcscale.data.order import keyed
from hpcscale.data.store import open_data
from hpcscale.inputs.crops import Crops, Steps, random_crops
from hpcscale.samples.chosen import choose, open_vocabulary

ROOT = Path(__file__).parent.parent
SAMPLES, CLASSES, RANKS = 3_500_000_000, 17_000, 336
BYTES = 15  # of an index, for each sample in it
RESIDENT, BATCH, PLAN = 1000, 1.0, 60  # limits: MB of a rank, ms for a batch, s for `data plan`
FIRST, BATCHES, COMPARED = 5000, 300, 3  # steps: where a run goes on, that are timed, that are compared

TENTH = ["data.index=index.h5", "selection.share=0.1", "noise.share=0.25"]
RECIPES = {
    "all samples, natural": [],
    "all samples, in blocks": ["data.block=1024", "data.window=1024"],
    "a tenth, natural": TENTH,
    "a tenth, square root, repeat factors": [*TENTH, "sampling.name=sqrt"],
    "a tenth, square root, two-stage": [*TENTH, "sampling.name=sqrt", "sampling.method=two-stage"],
    "a tenth, uniform, repeat factors": [*TENTH, "sampling.name=uniform"],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/scale", help="room for an index of 5 GB")
    parser.add_argument("--record", type=Path, help="write the tables to this file too")
    parser.add_argument("--inside", choices=INSIDE, help=argparse.SUPPRESS)  # what a process of ours does
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, default=RANKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    world = World(options.samples, options.classes)
    if options.inside:
        print(json.dumps(INSIDE[options.inside](options, world)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    needed, free = world.selected * BYTES, shutil.disk_usage(options.folder).free
    if needed > free:
        parser.error(f"{options.folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text, broken = measured(Path(folder), world)
    print(text)
    if options.record:
        options.record.write_text(text)
    for limit in broken:
        print(f"broken: {limit}", file=sys.stderr)
    return 1 if broken else 0


def measured(folder: Path, world: World) -> tuple[str, list[str]]:
    """The tables, and which limits are broken."""
    _say("data set")
    synthetic.make_set(folder, world)
    _say("index")
    made = json.loads(_run(folder, *_inside("index", world), *_sets(TENTH))[0])
    broken, rows = [], []
    for name, overrides in RECIPES.items():
        _say(name)
        sets = _sets(overrides)
        rank = json.loads(_run(folder, *_inside("rank", world), *sets)[0])
        half = json.loads(_run(folder, *_inside("sequence", world), *sets, "--ranks", str(RANKS // 2))[0])
        words = ("hpcscale", "data", "plan", "recipe.toml", "--ranks", str(RANKS), "--json")
        text, seconds = _run(folder, *words, *sets)
        plan, same = json.loads(text), rank["sequence"] == half["sequence"]
        limits = {
            f"a rank has {rank['peak_mb']:.0f} MB": rank["peak_mb"] < RESIDENT,
            f"planning a batch takes {rank['batch_ms']:.2f} ms": rank["batch_ms"] < BATCH,
            f"data plan takes {seconds:.0f} s": seconds < PLAN,
            f"{RANKS // 2} ranks see other samples than {RANKS}": same,
        }
        broken += [f"{name}: {limit}" for limit, kept in limits.items() if not kept]
        since = rank["peak_mb"] - rank["before_mb"]
        cells = [name, f"{plan['samples']:,}", f"{rank['peak_mb']:.0f}", f"{since:.0f}"]
        cells += [f"{rank['open_s']:.1f}", f"{rank['batch_ms']:.2f}", f"{rank['late_ms']:.2f}"]
        cells += [f"{seconds:.0f}", f"{plan['evenness']:.3f}", str(plan["shards_open"])]
        rows.append(f"| {' | '.join(cells)} | {'same' if same else 'OTHER'} |")
    return _text(world, made, rows), broken


def _inside(what: str, world: World) -> list[str]:
    sizes = ["--samples", str(world.samples), "--classes", str(world.classes)]
    return ["benchmarks.scale", "--inside", what, *sizes]


def _run(folder: Path, module: str, *words: str) -> tuple[str, float]:
    """What `python -m MODULE WORDS` prints, in a fresh process, and its seconds."""
    start = time.perf_counter()
    command = (sys.executable, "-m", module, *words)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, time.perf_counter() - start


def _sets(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _text(world: World, made: dict[str, float], rows: list[str]) -> str:
    columns = [
        "recipe", "samples of an epoch", "a rank, MB", "of these since imports", "opens, s", "batch, ms",
        "99th of 100, ms", f"`data plan` of {RANKS} ranks, s", "evenness", "shards of a step",
        f"{RANKS // 2} ranks",
    ]  # fmt: skip
    return f"""{machine("benchmarks.scale")}
## {world.samples:,} samples, {world.classes:,} classes (Zipf), {RANKS} ranks, batch 8,064

| {" | ".join(columns)} |
|---|{"---:|" * 9}---|
{chr(10).join(rows)}

- Where a tenth is selected, a quarter of the labels are wrong.
- Each row is of fresh processes. Memory of a rank is its highest, with Python, NumPy and all else that
  planning imports, but without torch, model and pictures.
- A batch is the 24 samples of a rank: which they are, their noise, their crops. Median of {BATCHES}.
- Evenness: the bytes of the rank that reads most in 100 steps, over the mean. Shards: that a rank needs in a
  step, at most. The last column compares samples and crops of {COMPARED} steps with those of {RANKS} ranks.

## The index of {world.selected:,} samples, on one core

| seconds | CPU seconds | to draw the samples | samples/CPU second | file, GB | memory but for it, MB |
|---:|---:|---:|---:|---:|---:|
| {made["seconds"]:.0f} | {made["core"]:.0f} | {made["drawing"]:.0f} | {
        world.selected / made["core"]:,.0f} | {made["bytes"] / 1e9:.2f} | {made["anonymous_mb"]:.0f} |

- Noise, counts of classes, the rarest class of each sample, lists by class: what `data index` does once it
  has read tags and digests from the shards.
"""


def make_index(options: argparse.Namespace, world: World) -> dict[str, float]:
    core = time.process_time()
    drawn = sum(len(rows.samples) for rows in islice(synthetic.candidates(world), 8))
    each = (time.process_time() - core) / drawn
    file = Path("index.h5")
    settings = config.load(Path("recipe.toml"), options.set)
    wall, core = time.perf_counter(), time.process_time()
    walks = synthetic.make_index(settings, world, file)
    return {
        "seconds": time.perf_counter() - wall,
        "core": time.process_time() - core,
        "drawing": each * world.selected * walks,
        "bytes": file.stat().st_size,
        "anonymous_mb": _status("RssAnon"),
    }


def rank(options: argparse.Namespace, world: World) -> dict[str, Any]:
    """What rank 7 does until it has planned some batches."""
    before, start = _status("VmHWM"), time.perf_counter()
    settings = config.load(Path("recipe.toml"), options.set)
    data = open_data(settings.data.train)
    chosen = choose(settings, data, open_vocabulary(settings))
    cut = random_crops(data, chosen.order, settings.input, settings.train.seed)
    opened = time.perf_counter() - start
    draw, times = synthetic.Draw(world.classes), []
    for places in Steps(FIRST, BATCHES, settings.train.batch, 7, options.ranks).places():
        start = time.perf_counter()
        crops = cut(places)
        seconds = time.perf_counter() - start
        if chosen.noise is not None:
            pictures, offsets, classes = draw(crops.samples)  # which a rank reads from the shards
            start = time.perf_counter()
            chosen.noise(keyed(pictures, settings.noise.seed), offsets, classes)
            seconds += time.perf_counter() - start
        times.append(seconds * 1e3)
    return {
        "before_mb": before,
        "peak_mb": _status("VmHWM"),
        "open_s": opened,
        "batch_ms": statistics.median(times),
        "late_ms": float(np.percentile(times, 99)),
    } | sequence(options, world)


def sequence(options: argparse.Namespace, _: World) -> dict[str, str]:
    """The digest of all that the ranks of a run that goes on see in some steps, in the order of places."""
    settings = config.load(Path("recipe.toml"), options.set)
    data = open_data(settings.data.train)
    order = choose(settings, data, open_vocabulary(settings)).order
    cut = random_crops(data, order, settings.input, settings.train.seed)
    ranks = [
        Steps(FIRST, COMPARED, settings.train.batch, one, options.ranks).places()
        for one in range(options.ranks)
    ]
    digest = hashlib.sha256()
    parts: list[Crops] = [cut(places) for step in zip(*ranks, strict=True) for places in step]
    for column in zip(*parts, strict=True):
        digest.update(np.concatenate(column).tobytes())
    return {"sequence": digest.hexdigest()}


def _status(key: str) -> float:
    """A line of this process's status, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:"))


INSIDE = {"index": make_index, "rank": rank, "sequence": sequence}

if __name__ == "__main__":
    sys.exit(main())
