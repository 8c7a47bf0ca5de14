"""The training loop: a Job and a run folder in, checkpoints, log and evaluations out; all ranks run it.

The same call again goes on from the newest good checkpoint: with the same bits as if it had never stopped
(same number of ranks and threads), with the same samples in the same order at any number of ranks. Batch
normalisation uses the statistics of a rank's own part of the batch; the running averages that are saved and
evaluated are those of rank 0.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcscale import ranks
from hpcscale.files import Told
from hpcscale.train import average, optim, run_folder, schedule, state
from hpcscale.train.compress import KINDS
from hpcscale.train.divergence import Guard, History, check, go_back
from hpcscale.train.downpour import Workers
from hpcscale.train.gradients import GradientBuckets
from hpcscale.train.job import Batch, Job
from hpcscale.train.log import Report
from hpcscale.train.process import Process
from hpcscale.train.readback import Readback, Step
from hpcscale.train.scaling import LossScale


class Interrupted(Told):
    """The run stopped on request, after saving a checkpoint; the same command goes on."""

    code = ranks.RESUMABLE


def run(job: Job, process: Process[Any]) -> None:
    """Train until `train.steps` steps are done (collective).

    Raises Interrupted, after all is saved, on SIGINT, SIGTERM, SIGUSR1 or the flag of a job; Diverged, on all
    ranks in the same step, if neither skipping steps nor going back helps; RankLost, ConfigError,
    RunError and CheckpointError with what is wrong.
    """
    settings, folder, watchdog = process.settings, process.run, process.watchdog
    train, model, optimizer = settings.train, job.model, job.optimizer
    with ExitStack() as stack:
        if ranks.rank() == 0:
            stack.enter_context(run_folder.lock(folder))
            run_folder.agree(folder, settings)
        guard, workers = Guard(model), Workers(settings, model, optimizer)
        average.begin(model, optimizer, train.average)
        step, kept = state.resume(folder, model, optimizer, job.fingerprint)
        if ranks.rank() == 0:
            run_folder.keep(folder, settings)
        scale = LossScale(train.precision, process.device, kept.get("scale"))
        gradients = GradientBuckets(model.parameters(), local=job.local, compress=KINDS[train.compress])
        history = History(settings.divergence, kept.get("divergence"))
        window = kept.get("window", (0.0, 0))
        report = stack.enter_context(Report(folder, settings, step, window, process.clock, job.facts))
        batches = stack.enter_context(closing(job.batches(step, report.bad_sample)))
        readback, stopping = Readback(), False
        while step < train.steps and not stopping:
            watchdog.step()
            optim.set_lr(optimizer, schedule.lr(settings.schedule, step, train.steps))
            gradients.clear(train.accumulate)
            guard.remember()
            with workers.turn(step):
                loss, samples = _backward(job, batches, scale, train.accumulate, report)
            with report.timed("allreduce"):
                # Collective. Two more numbers are summed: the loss, and whether this rank was asked to stop.
                numbers = gradients.finish(loss, float(process.stop.requested))
            step += 1
            bad, overflow = _judge(gradients, scale, guard, numbers[0], history.limit(step))
            gradients.clip(settings.optimizer.clip)
            _update(optimizer, bad, guard, workers)
            average.update(optimizer, train.average, step, bad)
            readback.put(step, samples, torch.stack([*numbers, bad, overflow]))
            evaluates = _due(step, train.evaluate_every, train.steps)
            saves = _due(step, train.checkpoint_every, train.steps) or step in train.keep_at
            stopping |= _check(readback.take(everything=evaluates or saves), job, history, report)
            if stopping:
                _check(readback.take(everything=True), job, history, report)
            if evaluates or saves or stopping or step == history.due:
                watchdog.pause()
            if step == history.due:
                go_back(folder, step, train.checkpoint_every, model, optimizer, history, report)
                scale.reset()
            if evaluates:  # before the checkpoint of its step, so that a kill in between does not lose it
                _evaluate(job, step, report)
            if saves or stopping:
                _save(job, process, step, history, scale, report)
            if evaluates or saves:
                report.restart_clock()
        report.end(step, "finished" if step >= train.steps else "interrupted")
        if step < train.steps:
            raise Interrupted(f"{folder}: stopped after step {step}; the same command goes on from there")


def _backward(
    job: Job, batches: Iterator[Batch], scale: LossScale, parts: int, report: Report
) -> tuple[Tensor, NDArray[np.int64]]:
    """Loss and samples of this rank in a step of so many batches; each batch adds its gradients."""
    losses, samples = [], []
    for _ in range(parts):
        with report.timed("wait"):
            batch = next(batches)
        with report.timed("compute"):
            loss = job.loss(batch)
            scale.up(loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        samples.append(batch.samples)
    return torch.stack(losses).sum(), np.concatenate(samples)


def _judge(
    gradients: GradientBuckets, scale: LossScale, guard: Guard, loss: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """Whether the update of a step is not applied, and whether only the loss scale is to blame; 0.0 or 1.0,
    on the device. The gradients become those of the loss."""
    scale.down(gradients)
    bad = guard.judge(loss, limit, gradients.buckets)
    return bad, scale.update(bad, loss <= limit)


def _check(steps: Iterator[Step], job: Job, history: History, report: Report) -> bool:
    """Count them all; whether any rank was asked to stop in one of them."""
    asked = [check(done, job.names, history, report) for done in steps]
    return any(asked)


def _update(optimizer: torch.optim.Optimizer, bad: Tensor, guard: Guard, workers: Workers) -> None:
    """The weights after a step, as they were if it was bad."""
    optim.step(optimizer, workers.push(bad))
    workers.fetch()
    guard.restore(bad)


def _evaluate(job: Job, step: int, report: Report) -> None:
    if job.assess is not None:
        with average.in_use(job.optimizer):
            ranks.broadcast(job.model.buffers())  # the statistics of rank 0
            report.evaluation(step, *job.assess(step))


def _save(
    job: Job, process: Process[Any], step: int, history: History, scale: LossScale, report: Report
) -> None:
    report.write_bad_samples(step)
    told = job.fingerprint | {"window": report.window(), "divergence": history.state()}
    if scale.used:
        told["scale"] = scale.state()
    state.save(process.run, step, job.model, job.optimizer, told, process.settings.train)


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)
