"""Rates of the parts of a training, each alone and all together, measured on the ranks that would train.

In: a recipe's settings, a process that is ready to train. Out: plain numbers, the same for people.

Nothing is rebuilt for the measurement: the loader is the recipe's, and steps are those of train.loop, on a
run folder that is thrown away. Alone, a step gets one batch again and again. A measurement has five windows;
the first, which also fills caches and allocates, does not count, and the median of the others does. The
learning rate is nearly zero, so that weights stay sane whatever the pictures are.
"""

import json
import statistics
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from hpcscale import config, ranks
from hpcscale.config import Config
from hpcscale.inputs.mending import Tell, on_stderr
from hpcscale.train import compress, loop, pretrain, process
from hpcscale.train.gradients import GradientBuckets
from hpcscale.train.job import Job
from hpcscale.train.process import Process

WHAT = ("loader", "step", "allreduce", "full")
WINDOWS = 5
LOADS = 8  # times as many steps where nothing but the loader works, which has some batches ready at any time
SHARES = ("wait", "compute", "allreduce", "rest")

Found = dict[str, Any]


class Enough(Exception):
    """Ends a loop that is only timed, where its run would go on."""


def measure(settings: Config, what: str, steps: int, say: Callable[[str], None]) -> Found:
    """The numbers of `what`, one of WHAT, over at least so many steps; of `full`, those of all (collective).

    Raises what a training of the recipe would, and KeyboardInterrupt where this process was asked to stop.
    """
    every = -(-steps // (WINDOWS - 1))
    with process.start(timed(settings, every), Path()) as here:
        settings = here.settings
        inputs = pretrain.open_inputs(settings)
        found: Found = {
            "what": what,
            "ranks": ranks.size(),
            "device": here.device.type,
            "threads": torch.get_num_threads(),
            "model": settings.model.name,
            "precision": settings.train.precision,
            "compress": settings.train.compress,
            "crop": settings.input.crop,
            "batch": settings.train.batch,
            "steps": every * (WINDOWS - 1),
        }
        for part in WHAT if what == "full" else (what,):
            say(PARTS[part])
            longer = here._replace(settings=timed(settings, every * LOADS if part == "loader" else every))
            found[part] = MEASURES[part](pretrain.build(longer, inputs), longer)
    if what == "full":
        full, loader, step = (found[part]["samples_per_second"] for part in ("full", "loader", "step"))
        found["overhead"] = {"of_slower": min(loader, step) / full - 1, "of_step": step / full - 1}
    return found


def lines(found: Found) -> list[tuple[str, str]]:
    """The same for people: names and values."""
    head = "{ranks} rank(s) on {device}, {threads} thread(s) each, {model} in {precision}, {crop} pixels, "
    told = [("measured", (head + "batch {batch}, {steps} steps").format_map(found))]
    for part in WHAT:
        if part in found:
            told.append((PARTS[part], _text(found[part], found["ranks"])))
    if "overhead" in found:
        over = found["overhead"]
        told.append(("overhead", f"{over['of_slower']:.1%} over the slower of loader and step alone, "
                                 f"{over['of_step']:.1%} over the step alone"))  # fmt: skip
    return told


def _text(numbers: Found, size: int) -> str:
    if "megabytes" in numbers:
        rate = "{ms:.1f} ms for {megabytes:.1f} MB, {megabytes_per_second:,.0f} MB/s".format_map(numbers)
        return rate if size > 1 else "one rank: nothing travels"
    text = f"{numbers['samples_per_second']:,.1f} samples/s"
    if "ms" in numbers:
        shares = ", ".join(f"{name} {numbers[name]:.1%}" for name in SHARES)
        text += f", {numbers['ms']:,.1f} ms a step: {shares}"
    return text


def timed(settings: Config, every: int) -> Config:
    """The recipe, as long as it is timed, without what is no step: checkpoints, evaluations, boards."""
    # Two more steps than windows have: one in which a GPU's host hears of the last, one that is never begun.
    last = {"steps": WINDOWS * every + 2, "log_every": every, "checkpoint_every": config.STEPS}
    none = {"evaluate_every": 0, "keep_at": (), "tensorboard": False}
    return settings.model_copy(
        update={
            "train": settings.train.model_copy(update=last | none),
            "schedule": config.Schedule(lr=1e-9),
            "divergence": config.Divergence(),
        }
    )


def _loader(job: Job, here: Process[Any]) -> Found:
    train = here.settings.train
    with closing(job.batches(0, on_stderr)) as batches:

        def some() -> None:
            for _ in range(train.accumulate):
                next(batches)

        seconds = _median(here, some, train.log_every)
    return {"samples_per_second": train.batch / seconds}


def _allreduce(job: Job, here: Process[Any]) -> Found:
    kind = compress.KINDS[here.settings.train.compress]
    gradients = GradientBuckets(job.model.parameters(), local=job.local, compress=kind)
    size = sum(bucket.numel() * bucket.element_size() for bucket in gradients.buckets) / 1e6

    def reduce() -> None:
        gradients.clear(passes=0)
        for parameter in gradients.local:
            parameter.grad = torch.zeros_like(parameter)
        gradients.finish(0.0, 0.0)

    seconds = _median(here, reduce, here.settings.train.log_every)
    return {"ms": seconds * 1e3, "megabytes": size, "megabytes_per_second": size / seconds}


def _median(here: Process[Any], step: Callable[[], None], every: int) -> float:
    """Seconds of a step: of the slowest rank of each window, the median (collective)."""
    windows = []
    for _ in range(WINDOWS):
        ranks.barrier()
        began = perf_counter()
        for _ in range(every):
            if here.stop.requested:
                raise KeyboardInterrupt
            step()
        if here.device.type == "cuda":
            torch.cuda.synchronize()
        windows.append(perf_counter() - began)
    slowest = ranks.max_(torch.tensor(windows, dtype=torch.float64, device=here.device))
    median: float = statistics.median(slowest.tolist()[1:])
    return median / every


def _step(job: Job, here: Process[Any]) -> Found:
    """Of the loop with one batch, made before."""
    with closing(job.batches(0, on_stderr)) as batches:
        return _loop(job, here, lambda step, tell: repeat(next(batches)))


def together(job: Job, here: Process[Any]) -> Found:
    return _loop(job, here, job.batches)


def _loop(job: Job, here: Process[Any], batches: Callable[[int, Tell], Any]) -> Found:
    train = here.settings.train

    def limited(step: int, tell: Tell) -> Generator[Any, None, None]:
        given = batches(step, tell)
        try:
            for _ in range((train.steps - 1) * train.accumulate):
                yield next(given)
        finally:
            if hasattr(given, "close"):
                given.close()
        raise Enough

    with TemporaryDirectory(prefix="hpcscale-bench-") as name:
        try:
            with suppress(Enough):
                loop.run(job._replace(batches=limited, assess=None), here._replace(run=Path(name)))
        except loop.Interrupted:
            raise KeyboardInterrupt from None
        text = (Path(name) / "log.jsonl").read_text() if ranks.rank() == 0 else ""
    steps = [line for line in map(json.loads, text.splitlines()) if line["event"] == "step"]
    steps = ranks.broadcast_object(steps)  # others keep no log
    keys = ("samples_per_second", *SHARES)
    found = {key: statistics.median(line[key] for line in steps[1:]) for key in keys}
    return found | {"ms": train.batch / found["samples_per_second"] * 1e3}


PARTS = {
    "loader": "loader alone",
    "step": "step alone",
    "allreduce": "allreduce alone",
    "full": "together",
}
MEASURES = {"loader": _loader, "step": _step, "allreduce": _allreduce, "full": together}
