"""What a trial of `transfer finetune` pays beside its training steps.

A ResNet-50, a grid of three rates on the pictures of end_to_end, one rank. Seconds of steps are those of the
runs' own logs; all else between the command's first and last moment is beside them: imports, networks,
evaluations, checkpoints, choosing, hashing.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.end_to_end import SIDE, prepare

STEPS, BATCH, TRIALS, MOST = 80, 32, 3, 0.1
SECTIONS = """[target]
test = "{folder}/data"
[grid]
lr = [0.001, 0.002, 0.003]
[loss]
name = "softmax"
"""


def run() -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        recipe, out = folder / "recipe.toml", folder / "out"
        recipe.write_text(recipe.read_text() + SECTIONS.format(folder=folder))
        keys = {"steps": STEPS, "batch": BATCH, "threads": 0, "log_every": STEPS, "checkpoint_every": STEPS}
        words = [word for key, value in keys.items() for word in ("--set", f"train.{key}={value}")]
        command = [sys.executable, "-m", "hpcscale", "transfer", "finetune", "random", "--config", recipe]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--out", out, "--ranks", "1", "--set", "data.held_out=0.1", *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wall = time.perf_counter() - start
        runs = [*(out / "trials").iterdir(), out / "last-0"]
        assert len(runs) == TRIALS + 1
        steps = sum(map(_steps, runs))
    lines = [
        f"## {TRIALS} trials and a last training, {STEPS} steps of {BATCH} each: ResNet-50, {SIDE} pixels",
        "",
        f"- training steps: {steps:.1f} s; the whole command: {wall:.1f} s",
        f"- beside the steps: {wall / steps - 1:.1%} of them; wanted at most {MOST:.0%}",
    ]
    return "\n".join(lines) + "\n"


def _steps(run_: Path) -> float:
    """Seconds of a run's steps, by its log."""
    events = map(json.loads, (run_ / "log.jsonl").read_text().splitlines())
    return sum(
        event["samples_per_second"] and STEPS * BATCH / event["samples_per_second"]
        for event in events
        if event["event"] == "step"
    )
