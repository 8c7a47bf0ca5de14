"""The training loop: a configuration and a run folder in, checkpoints, log and evaluations out; all ranks run
it.

The same call again goes on from the newest good checkpoint: with the same bits as if it had never stopped
(same number of ranks and threads), with the same samples in the same order at any number of ranks. Batch
normalisation uses the statistics of a rank's own part of the batch; the running averages that are saved and
evaluated are those of rank 0.
"""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from hpcscale import ranks
from hpcscale.config import Config
from hpcscale.data import same
from hpcscale.data.drop import order_of
from hpcscale.data.order import Order
from hpcscale.data.store import DataSet, open_data
from hpcscale.evaluate import classify
from hpcscale.files import Told
from hpcscale.inputs import pipeline
from hpcscale.labels import vocabulary as vocabulary_file
from hpcscale.labels.targets import Targets
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.models import resnet
from hpcscale.train import optim, run_folder, schedule, state
from hpcscale.train.divergence import Guard, History, check, go_back
from hpcscale.train.gradients import GradientBuckets
from hpcscale.train.log import Report, process_age
from hpcscale.train.loss import LOSSES
from hpcscale.train.process import prepare
from hpcscale.train.readback import Readback
from hpcscale.train.signals import StopRequest
from hpcscale.train.watchdog import Watchdog


class Interrupted(Told):
    """The run stopped on request, behind a checkpoint; the same command goes on."""

    code = ranks.RESUMABLE


class Inputs(NamedTuple):
    """What a run reads."""

    data: DataSet
    vocabulary: Vocabulary
    order: Order
    evaluated: classify.Subset | None  # None: only evaluated by hand


def train(settings: Config, run: Path) -> None:
    """Train until `train.steps` steps are done (collective).

    Raises Interrupted after SIGINT, SIGTERM or SIGUSR1, or the flag of a job, when all is saved; Diverged on
    all ranks in the same step when neither skipping steps nor going back helps; SlurmError, RankLost,
    ConfigError, DeviceError, RunError, DataError, VocabularyError, CheckpointError and EvaluateError with
    what is wrong.
    Determinism is switched on for the process.
    """
    clock = {"imported": process_age()}
    ranks.init(run)
    clock["met"] = process_age()
    settings = same.settings(settings)
    with ExitStack() as stack:
        device = prepare(settings)
        first, attempt = ranks.rank() == 0, ranks.attempt(run)
        stop = stack.enter_context(
            StopRequest(attempt / "stop" if first and attempt else None, attempt is not None)
        )
        stuck = (attempt or run) / f"stack.{ranks.rank()}.txt"
        watchdog = stack.enter_context(Watchdog(settings.watchdog, stuck))
        # Before anything is made: what cannot be used leaves no trace.
        data, vocabulary, order, evaluated = open_inputs(settings)
        if first:
            stack.enter_context(run_folder.lock(run))
            run_folder.agree(run, settings)
        train_ = settings.train
        share = train_.batch // ranks.size()
        # Two buffers in turn: a GPU may still copy the rows of the step before.
        rows = torch.zeros(2, share, len(vocabulary.classes), pin_memory=device.type == "cuda")
        targets = [
            Targets(vocabulary, data.tags, settings.loss.name, share, buffer=half.numpy()) for half in rows
        ]
        loss_of = LOSSES[settings.loss.name]

        torch.manual_seed(train_.seed)
        model = resnet.build(settings.model, len(vocabulary.classes)).to(device)
        optimizer = optim.build(model, settings.optimizer)
        contents = same.fingerprint(vocabulary, data, order)
        step, kept = state.resume(run, model, optimizer, contents)
        if first:
            run_folder.keep(run, settings)
        gradients, guard = GradientBuckets(model.parameters()), Guard(model)
        history = History(settings.divergence, kept.get("divergence"))
        report = stack.enter_context(Report(run, settings, step, kept.get("window", (0.0, 0)), clock))
        batches = pipeline.train_batches(
            data,
            order,
            settings.input,
            batch=train_.batch,
            seed=train_.seed,
            first_step=step,
            steps=train_.steps - step,
            rank=ranks.rank(),
            size=ranks.size(),
            device=device,
            report=report.bad_sample,
        )
        stack.enter_context(closing(batches))
        readback, stopping = Readback(), False
        model.train()
        while step < train_.steps and not stopping:
            watchdog.step()
            with report.share("wait"):
                batch = next(batches)
            optim.set_lr(optimizer, schedule.lr(settings.schedule, step, train_.steps))
            targets[step % 2].rows(batch.tag_offsets, batch.tag_ids)
            gradients.clear()
            guard.remember()
            with report.share("compute"):
                with torch.autocast(device.type, torch.bfloat16, train_.precision == "bfloat16"):
                    logits = model(batch.images)
                loss = loss_of(logits, rows[step % 2].to(device, non_blocking=True)) / train_.batch
                loss.backward()  # type: ignore[no-untyped-call]
            with report.share("allreduce"):
                # Collective. Two more numbers ride along: the loss, and whether this rank was asked to stop.
                numbers = gradients.finish(loss.detach(), float(stop.requested))
            step += 1
            bad = guard.judge(numbers[0], history.limit(step), gradients.buckets)
            optim.step(optimizer, bad)
            guard.restore(bad)
            readback.put(step, batch.samples, torch.stack([*numbers, bad]))
            last = step == train_.steps
            evaluates = last or _due(step, train_.evaluate_every)
            saves = last or _due(step, train_.checkpoint_every)
            for done in readback.take(everything=evaluates or saves):
                stopping |= check(done, data, history, report)
            if stopping:
                for done in readback.take(everything=True):
                    check(done, data, history, report)
            if evaluates or saves or stopping or step == history.due:
                watchdog.pause()
            if step == history.due:
                go_back(run, step, train_.checkpoint_every, model, optimizer, history, report)
            # An evaluation comes before the checkpoint of its step, so that a kill in between does not lose
            # it.
            if evaluates and evaluated is not None:
                assess(model, settings, run, evaluated, vocabulary, share, device, step, report)
            if saves or stopping:
                report.write_bad_samples(step)
                kept = {"window": report.window(), "divergence": history.state()}
                state.save(run, step, model, optimizer, contents | kept, train_.keep)
            if evaluates or saves:
                report.restart_clock()
        report.end(step, "finished" if step >= train_.steps else "interrupted")
        if step < train_.steps:
            raise Interrupted(f"{run}: stopped after step {step}; the same command goes on from there")


def open_inputs(settings: Config) -> Inputs:
    """Open all that the configuration names, and check that it goes together; reads the drop list, once.

    Raises ConfigError, DataError, VocabularyError and EvaluateError.
    """
    data = open_data(settings.data.train)
    pipeline.check_sizes(data, settings.input)
    vocabulary = vocabulary_file.load(settings.data.vocabulary)
    order = order_of(settings, data)
    which = classify.default_set(settings)
    if which == "train":
        return Inputs(data, vocabulary, order, None)
    evaluated = classify.open_set(settings, which, data, order)
    pipeline.check_sizes(evaluated.data, settings.input)
    return Inputs(data, vocabulary, order, evaluated)


def assess(
    model: nn.Module,
    settings: Config,
    run: Path,
    subset: classify.Subset,
    vocabulary: Vocabulary,
    batch: int,
    device: torch.device,
    step: int,
    report: Report,
) -> None:
    """Evaluate on the validation data, or else on the held-out part (collective)."""
    ranks.broadcast(model.buffers())  # the running averages of rank 0
    evaluation = classify.evaluate_set(model, settings, subset, vocabulary, batch, device)
    if ranks.rank() == 0:
        classify.save(evaluation, run, subset, step, vocabulary)
    report.evaluation(step, subset.which, dict(evaluation.metrics))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
