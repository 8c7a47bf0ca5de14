"""What a run tells: lines of log.jsonl, a progress bar or lines on stderr, TensorBoard. Rank 0 writes.

The shares of a step's time:

    wait        for the pipeline
    compute     forward and backward
    allreduce   from the end of backward until the sums are there, including the wait for slower ranks
    rest        everything else

On a GPU they are times of the host, which only queues work there.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale import __version__, ranks
from hpcscale.config import ConfigError, Training
from hpcscale.inputs.mending import BadSample
from hpcscale.progress import Bars
from hpcscale.train import schedule
from hpcscale.train.run_folder import LogFile


class Report:
    """A context. `window`: the sum of the losses since the last line, and the number of those steps. It is in
    every checkpoint, so that a continued run writes the same lines as an uninterrupted one."""

    def __init__(
        self,
        run: Path,
        settings: Training,
        step: int,
        window: tuple[float, int],
        clock: dict[str, float],
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """clock: when earlier stages ended, in seconds since the process began. facts: what else the first
        line says."""
        self.run, self.settings, self.first, self.facts = run, settings, step, facts
        self.clock: dict[str, float] | None = clock
        self.loss, self.losses = window
        self.times = {"wait": 0.0, "compute": 0.0, "allreduce": 0.0}
        self.timed_steps = 0
        self.bad: list[BadSample] = []
        self.stack = ExitStack()
        self.bar: Bars | None = None
        self.text = ""  # behind the bar
        self.board: Any = None

    def __enter__(self) -> "Report":
        self.since = perf_counter()
        self.writes = ranks.rank() == 0
        if not self.writes:
            return self
        train = self.settings.train
        self.board = _tensorboard(self.run) if train.tensorboard else None
        self.log = LogFile(self.run, self.first)
        began = {
            "ranks": ranks.size(),
            "backend": ranks.backend(),
            "steps": train.steps,
            "version": __version__,
            **self.facts,
        }
        began |= ranks.job(self.run)
        self.log.write("resume" if self.first else "start", self.first, **began)
        if sys.stderr.isatty():
            self.bar = self.stack.enter_context(Bars())
            self.bar("", self.first, train.steps, self.text)
        elif self.first:
            self.say(f"going on after step {self.first} of {train.steps}")
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()
        if self.writes:
            self.log.stream.close()
            if self.board is not None:
                self.board.close()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the time inside as `name`."""
        began = perf_counter()
        yield
        self.times[name] += perf_counter() - began

    def window(self) -> tuple[float, int]:
        return self.loss, self.losses

    def step(self, step: int, loss: float | None) -> None:
        """Call after every step; loss is None if it was skipped. Writes a line every `train.log_every`
        steps."""
        train = self.settings.train
        if self.clock is not None and self.writes:
            self.log.write("first_step", self.first, **self.clock, first_step=process_age())
        self.clock = None
        if loss is not None:
            self.loss += loss
            self.losses += 1
        self.timed_steps += 1
        if self.bar:
            self.bar("", step, train.steps, self.text)
        if step % train.log_every and step != train.steps:
            return
        if self.writes and self.losses:
            seconds = perf_counter() - self.since
            shares = {name: round(spent / seconds, 4) for name, spent in self.times.items()}
            line = {
                "samples": step * train.batch,
                "loss": self.loss / self.losses,
                "lr": schedule.lr(self.settings.schedule, step - 1, train.steps),
                "seconds": round(self.log.seconds(), 3),
                "samples_per_second": round(self.timed_steps * train.batch / seconds, 2),
                **shares,
                "rest": round(1.0 - sum(shares.values()), 4),
            }
            self.log.write("step", step, **line)
            self._scalars(step, {key: line[key] for key in ("loss", "lr", "samples_per_second")})
            text = f"loss {line['loss']:.4g}  lr {line['lr']:.3g}  {line['samples_per_second']:.0f} samples/s"
            if self.bar:
                self.text = text
                self.bar("", step, train.steps, text)
            else:
                self.say(f"step {step}/{train.steps}  {text}")
        self.loss, self.losses = 0.0, 0
        self.restart_clock()

    def skip(self, step: int, reason: str, samples: NDArray[np.int64]) -> None:
        """A step whose update was not applied."""
        if self.writes:
            self.log.write("skip", step, reason=reason, samples=samples.tolist())
            self.say(f"{reason}; skipped")
        self.step(step, None)

    def overflow(self, step: int) -> None:
        """A step whose update was not applied, because its loss scale was too large for float16."""
        if self.writes:
            self.log.write("overflow", step)

    def rollback(self, step: int, to: int) -> None:
        if self.writes:
            self.log.write("rollback", step, to=to)
            self.say(f"after step {step}: back to the weights of step {to}")

    def restart_clock(self) -> None:
        """Do not count the time since the last line (an evaluation, a checkpoint) in the next line."""
        self.times = dict.fromkeys(self.times, 0.0)
        self.timed_steps = 0
        self.since = perf_counter()

    def evaluation(self, step: int, which: str, metrics: Mapping[str, Any]) -> None:
        if self.writes:
            self.log.write("evaluation", step, set=which, **metrics)
            self._scalars(step, {f"{which}/{key}": value for key, value in metrics.items()})

    def bad_sample(self, bad: BadSample) -> None:
        """Remember a picture that was replaced until `write_bad_samples`."""
        self.bad.append(bad)

    def write_bad_samples(self, step: int) -> None:
        """Log what all ranks replaced since the last call (collective)."""
        lines = "".join(json.dumps(bad) + "\n" for bad in self.bad)
        gathered = ranks.gather(np.frombuffer(lines.encode(), np.uint8))
        self.bad.clear()
        for line in gathered.tobytes().decode().splitlines() if self.writes else ():
            sample, name, reason = json.loads(line)
            self.log.write("bad_sample", step, sample=sample, name=name, reason=reason)
            self.say(f"sample {sample} ({name}) cannot be decoded and was replaced: {reason}")

    def end(self, step: int, reason: str) -> None:
        if self.writes:
            self.log.write("end", step, reason=reason, seconds=round(self.log.seconds(), 3))

    def say(self, text: str) -> None:
        if self.bar:
            self.bar.say(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _scalars(self, step: int, values: dict[str, Any]) -> None:
        if self.board is not None:
            for key, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(key, value, step)


def process_age() -> float:
    """Seconds since this process began, its imports included."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since boot
    return round(float(Path("/proc/uptime").read_text().split()[0]) - began, 2)


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"train.tensorboard needs the package tensorboard (pip install 'hpcscale[tensorboard]'): {error}"
        ) from None
    return SummaryWriter(str(run / "tensorboard"))
