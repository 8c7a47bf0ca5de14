"""Whole runs of a real ResNet-50 on a tiny data set: stopped, killed, continued, refused, diverged."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from places import GOLDEN

from hpcscale import config, ranks
from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.data.order import Order
from hpcscale.inputs import pipeline
from hpcscale.models import checkpoint
from hpcscale.train import loop, process, run_folder, state
from hpcscale.train.pretrain import train
from hpcscale.train.signals import StopRequest

LOSSES = GOLDEN / "loss.json"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("train"))


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """What a run switches on for its process is switched off again for the other tests."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one rank."""
    run = tmp_path_factory.mktemp("whole")
    train(tiny.settings(recipe), run)
    return run


def begin(run: Path, settings: config.Config) -> None:
    """As a run leaves its folder that was killed after its first step."""
    run_folder.keep(run, settings)
    (run / "log.jsonl").write_text('{"event": "first_step", "step": 0}\n')


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(run)
    assert found is not None
    model, optimizer = checkpoint.load(found)
    return model | {f"optimizer.{name}": value for name, value in optimizer.items()}


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def golden_losses(recipe: Path, run: Path) -> list[float]:
    train(tiny.settings(recipe), run)
    return [line["loss"] for line in tiny.events(run, "step")]


def test_loss_curve_is_golden(whole: Path) -> None:
    """Tolerance: kernels of other processors round differently, and six steps amplify it."""
    found = [line["loss"] for line in tiny.events(whole, "step")]
    assert found == pytest.approx(json.loads(LOSSES.read_text()), rel=2e-3)


def test_what_a_run_leaves(whole: Path, recipe: Path) -> None:
    assert config.read(whole / "config.json") == tiny.settings(recipe)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(next(iter(line)) == "event" for line in lines)
    assert [line["event"] for line in lines] == ["start", "first_step", *["step"] * 6, "end"]
    first = lines[1]
    assert 0 < first["imported"] <= first["met"] < first["first_step"]
    last = lines[-2]
    assert (last["step"], last["samples"], last["lr"]) == (6, 24, 0.002)
    shares = [last[key] for key in ("wait", "compute", "allreduce", "rest")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert min(shares) >= 0
    kept = sorted(path.stem for path in checkpoint.folder(whole).glob("*.json"))
    assert kept == ["step-00000002", "step-00000004", "step-00000006"]


def test_continued_run_has_the_bits_of_an_uninterrupted_one(
    recipe: Path, whole: Path, tmp_path: Path
) -> None:
    """Stopped after 3 steps, and continued: weights, running averages, momentum, and the lines of the log."""
    train(tiny.settings(recipe, train__steps=3), tmp_path)
    train(tiny.settings(recipe), tmp_path)
    assert_same_bits(tmp_path, whole)
    fields = ("step", "samples", "loss", "lr")
    found, wanted = ([[x[f] for f in fields] for x in tiny.events(r, "step")] for r in (tmp_path, whole))
    assert found == wanted


def test_a_mean_over_steps_survives_a_stop_inside_it(recipe: Path, whole: Path, tmp_path: Path) -> None:
    keys = {"train__log_every": 3, "train__checkpoint_every": 2}
    train(tiny.settings(recipe, **keys), tmp_path)
    for file in checkpoint.folder(tmp_path).glob("step-00000006*"):
        file.unlink()
    wanted = tiny.events(tmp_path, "step")
    assert [line["step"] for line in wanted] == [3, 6]
    losses = [line["loss"] for line in tiny.events(whole, "step")]
    assert [line["loss"] for line in wanted] == pytest.approx([np.mean(losses[:3]), np.mean(losses[3:])])
    train(tiny.settings(recipe, **keys), tmp_path)  # from step 4
    assert [line["loss"] for line in tiny.events(tmp_path, "step")] == [line["loss"] for line in wanted]
    assert tiny.events(tmp_path, "resume")[0]["step"] == 4


def test_every_signal_saves_and_the_same_call_ends_with_the_same_bits(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped three times, in the first step of each call."""
    real = pipeline.train_batches
    for stops, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), 1):

        def signalling(*arguments: Any, by: int = number, **keys: Any) -> Iterator[pipeline.Batch]:
            signal.raise_signal(by)
            yield from real(*arguments, **keys)

        before = signal.getsignal(number)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "train_batches", signalling)
            with pytest.raises(loop.Interrupted, match=f"stopped after step {stops}"):
                train(tiny.settings(recipe), tmp_path)
        assert signal.getsignal(number) is before
    train(tiny.settings(recipe), tmp_path)
    assert_same_bits(tmp_path, whole)


def test_in_a_job_only_the_first_signal_does_anything() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest(job=True) as stop:
            assert not stop.requested
            for _ in range(3):  # from Slurm, from Apptainer, from srun
                signal.raise_signal(signal.SIGTERM)
            assert stop.requested
        signal.raise_signal(signal.SIGTERM)  # while it leaves with its exit code
    finally:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)


def test_second_signal_acts_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_damaged_checkpoint_is_passed_over_with_the_same_end(
    recipe: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny.settings(recipe, train__steps=4), tmp_path)
    bad = checkpoint.folder(tmp_path) / "step-00000004.safetensors"
    bad.write_bytes(bad.read_bytes()[:-100])
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"event": "step", "st')  # a line that a kill cut
    train(tiny.settings(recipe), tmp_path)
    assert str(bad) in caplog.text
    assert tiny.events(tmp_path, "resume")[0]["step"] == 2
    assert [line["step"] for line in tiny.events(tmp_path, "step")] == [1, 2, 3, 4, 5, 6]
    assert_same_bits(tmp_path, whole)


def test_finished_run_does_nothing_more(recipe: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    train(tiny.settings(recipe), run)
    assert_same_bits(run, whole)


def test_cadence_may_change_and_steps_may_grow(recipe: Path, tmp_path: Path) -> None:
    settings = tiny.settings(recipe)
    begin(tmp_path, settings)
    longer = tiny.settings(recipe, train__steps=7, train__keep=9, train__log_every=2, input__threads=3)
    run_folder.agree(tmp_path, longer)
    run_folder.keep(tmp_path, longer)
    assert config.read(tmp_path / "config.json") == longer


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"schedule__lr": 0.5, "train__seed": 1},
            r"schedule.lr: 0.002 there, 0.5 here\n  train.seed: 3 there, 1 here",
        ),
        ({"train__steps": 5}, "train.steps: 6 there, 5 here"),
        ({"train__batch": 8}, "train.batch: 4 there, 8 here"),
        ({"schedule__name": "cosine"}, "schedule.name: 'constant' there, 'cosine' here"),
        ({"data__held_out": 0.5}, "data.held_out: 0.0 there, 0.5 here"),
    ],
)
def test_another_configuration_is_refused_by_key(
    recipe: Path, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    settings = tiny.settings(recipe)
    begin(tmp_path, settings)
    with pytest.raises(ConfigError, match=message):
        run_folder.agree(tmp_path, tiny.settings(recipe, **keys))
    assert config.read(tmp_path / "config.json") == settings


def test_steps_may_not_grow_under_a_schedule_that_depends_on_them(recipe: Path, tmp_path: Path) -> None:
    begin(tmp_path, tiny.settings(recipe, schedule__name="cosine"))
    with pytest.raises(ConfigError, match=r"train.steps: 6 there, 9 here"):
        run_folder.agree(tmp_path, tiny.settings(recipe, schedule__name="cosine", train__steps=9))


def test_other_data_under_the_same_name_are_refused(recipe: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for record in checkpoint.folder(run).glob("*.json"):
        tiny.rewrite(record, lambda content: content["metadata"].update(classes="other"))
    with pytest.raises(ConfigError, match=r"data\.vocabulary: not the contents that .*step-00000006"):
        train(tiny.settings(recipe, train__steps=8), run)


def test_dropped_samples_are_never_seen_and_the_list_may_not_change(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = [f"{i:02}.jpg" for i in range(0, tiny.PICTURES, 2)]
    (tmp_path / "drop.txt").write_text("".join(f"{name}\n" for name in dropped))
    seen = watch_samples(monkeypatch)
    run = tmp_path / "run"
    train(tiny.settings(recipe, data__drop=str(tmp_path / "drop.txt")), run)
    assert {i % 2 for batch in seen for i in batch} == {1}
    (tmp_path / "drop.txt").write_text("00.jpg\n")
    with pytest.raises(ConfigError, match=r"data\.drop: not the contents that .*step-00000006"):
        train(tiny.settings(recipe, data__drop=str(tmp_path / "drop.txt"), train__steps=8), run)


def test_one_process_at_a_time(recipe: Path, tmp_path: Path) -> None:
    with run_folder.lock(tmp_path), pytest.raises(run_folder.RunError, match=f"process {os.getpid()} on"):
        train(tiny.settings(recipe), tmp_path)


def test_nan_stops_with_the_samples_and_saves_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def nan_in_the_third(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return logits.sum() * (float("nan") if calls == 3 else 0.01)

    monkeypatch.setitem(loop.LOSSES, "logistic", nan_in_the_third)
    with pytest.raises(state.Diverged) as caught:
        train(tiny.settings(recipe, divergence__skips=0, divergence__rollbacks=0), tmp_path)
    samples, _ = Order(tiny.PICTURES, 3).samples_at(np.arange(8, 12))
    listed = ", ".join(f"{i} ({i:02}.jpg)" for i in samples)
    assert f"the loss of step 3 is nan; its samples: {listed}" in str(caught.value)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 2
    assert tiny.events(tmp_path, "skip")[0]["samples"] == samples.tolist()
    assert tiny.events(tmp_path, "end")[0]["reason"] == "diverged"


def test_weights_that_are_not_finite_are_never_saved(recipe: Path, tmp_path: Path) -> None:
    """A learning rate may be too much for finite gradients."""
    with pytest.raises(state.Diverged, match="not finite after step 1"):
        train(tiny.settings(recipe, train__steps=1, schedule__lr=1e300), tmp_path)
    assert checkpoint.latest(tmp_path) is None


def test_bfloat16_trains_and_keeps_float32_weights(recipe: Path, whole: Path, tmp_path: Path) -> None:
    train(tiny.settings(recipe, train__precision="bfloat16", train__steps=2), tmp_path)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(tmp_path).values())
    found, exact = (tiny.events(r, "step")[0]["loss"] for r in (tmp_path, whole))
    assert found != exact
    assert found == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    "keys", [{"loss__name": "softmax"}, {"optimizer__name": "rmsprop"}, {"model__head_bias": -3.0}]
)
def test_options_train(recipe: Path, tmp_path: Path, keys: dict[str, Any]) -> None:
    train(tiny.settings(recipe, train__steps=1, **keys), tmp_path)
    assert np.isfinite(tiny.events(tmp_path, "step")[0]["loss"])


def test_held_out_samples_are_evaluated_and_not_trained_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_samples(monkeypatch)
    settings = tiny.settings(recipe, data__held_out=0.3, train__evaluate_every=2, train__steps=5)
    train(settings, tmp_path)
    held_out = Order(tiny.PICTURES, 3, 0.3).held_out_samples()
    assert not set(held_out.tolist()) & {i for batch in seen for i in batch}
    lines = tiny.events(tmp_path, "evaluation")
    assert [(line["step"], line["set"], line["samples"]) for line in lines] == [
        (step, "held_out", held_out.size) for step in (2, 4, 5)
    ]
    assert (tmp_path / "evaluations" / "held_out-00000005" / "metrics.json").exists()


def test_evaluation_changes_nothing(recipe: Path, tmp_path: Path) -> None:
    keys = {"data__held_out": 0.3, "train__steps": 3}
    train(tiny.settings(recipe, **keys), tmp_path / "seldom")
    train(tiny.settings(recipe, **keys, train__evaluate_every=1), tmp_path / "often")
    assert_same_bits(tmp_path / "seldom", tmp_path / "often")


def watch_samples(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Samples of every training batch from here on."""
    seen: list[list[int]] = []
    real = pipeline.train_batches

    def watched(*arguments: Any, **keys: Any) -> Iterator[pipeline.Batch]:
        for batch in real(*arguments, **keys):
            seen.append(batch.samples.tolist())
            yield batch

    monkeypatch.setattr(pipeline, "train_batches", watched)
    return seen


def test_replaced_pictures_are_logged(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipeline.train_batches

    def reporting(*arguments: Any, **keys: Any) -> Any:
        keys["report"](pipeline.BadSample(5, "05.jpg", "cut"))
        return real(*arguments, **keys)

    monkeypatch.setattr(pipeline, "train_batches", reporting)
    train(tiny.settings(recipe, train__steps=1), tmp_path)
    assert [(x["sample"], x["name"], x["reason"]) for x in tiny.events(tmp_path, "bad_sample")] == [
        (5, "05.jpg", "cut")
    ]


def test_tensorboard_missing_is_said(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'hpcscale\[tensorboard\]'"):
        train(tiny.settings(recipe, train__tensorboard=True), tmp_path)


# ---- the command ----


def cli(*words: object) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "keep_memory", lambda: None)  # of this process, it would be for good
        return CliRunner().invoke(main, ["train", *map(str, words)])


def test_usage_errors_are_2(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for words, message in [
        ([run], "--config"),
        ([run, "--config", tmp_path / "none.toml"], "none.toml"),
        ([run, "--config", recipe, "--set", "train.stepz=3"], "train.stepz: unknown key; known are steps"),
        ([run, "--config", recipe, "--set", "train.batch=3", "--ranks", "2"], "which 2 ranks cannot share"),
        (
            [run, "--config", recipe, "--set", "train.batch=1", "--set", "input.crop=32"],
            "one value per channel is too few",
        ),
        ([run, "--config", recipe, "--ranks", "0"], "0 is not in the range"),
    ]:
        result = cli(*words)
        assert (result.exit_code, message in result.output) == (2, True), result.output
    assert not run.exists()


def test_configuration_of_another_run_is_a_usage_error(recipe: Path, tmp_path: Path) -> None:
    begin(tmp_path, tiny.settings(recipe))
    result = cli(tmp_path, "--config", recipe, "--set", "schedule.lr=1.0")
    assert (result.exit_code, "schedule.lr: 0.002 there, 1.0 here" in result.output) == (2, True)


def test_missing_data_is_a_problem_of_the_data(recipe: Path, tmp_path: Path) -> None:
    result = cli(tmp_path / "run", "--config", recipe, "--set", f"data.train={tmp_path / 'none'}")
    assert (result.exit_code, "none" in result.output) == (1, True)


def test_help_is_quick_and_needs_no_torch() -> None:
    heavy = ("torch", "h5py", "nvidia", "horovod")
    code = (
        "import sys\nfrom hpcscale.cli import main\n"
        "try:\n    main(['train', '--help'])\n"
        f"except SystemExit:\n    sys.exit(any(m in sys.modules for m in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def start(recipe: Path, run: Path, *words: str, count: int = 2) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "hpcscale", "train", str(run), "--config", str(recipe)]
    command += ["--ranks", str(count), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(recipe: Path, run: Path, *words: str, count: int = 2, code: int = 0) -> str:
    process = start(recipe, run, *words, count=count)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def whole_of_two(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two ranks."""
    run = tmp_path_factory.mktemp("two")
    finish(recipe, run)
    return run


@pytest.mark.slow
def test_signal_to_the_launcher_ends_with_75_and_the_same_command_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    words = ("--set", "train.log_every=1000", "--set", "train.checkpoint_every=3")
    process = start(recipe, tmp_path, *words, "--set", "train.steps=500")
    while checkpoint.latest(tmp_path) is None:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, "the same command goes on" in output) == (75, True), output
    stopped = checkpoint.latest(tmp_path)
    assert stopped is not None
    end = tiny.events(tmp_path, "end")[0]
    assert (end["step"], end["reason"]) == (stopped.step, "interrupted")
    assert 3 <= stopped.step < 500


@pytest.mark.slow
def test_two_ranks_see_and_learn_what_one_does(
    recipe: Path, whole: Path, whole_of_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss is of the same pictures and weights, but for the statistics of the halves of the batch;
    and one rank goes on where two stopped, with the pictures that come next."""
    first, second = (tiny.events(run, "step")[0]["loss"] for run in (whole, whole_of_two))
    assert second == pytest.approx(first, rel=0.1)
    run = tmp_path / "run"
    shutil.copytree(whole_of_two, run)
    seen = watch_samples(monkeypatch)
    train(tiny.settings(recipe, train__steps=8), run)
    samples, _ = Order(tiny.PICTURES, 3).samples_at(np.arange(6 * 4, 8 * 4))
    assert [i for batch in seen for i in batch] == samples.tolist()


@pytest.mark.slow
def test_nan_of_one_rank_stops_both_and_names_the_samples_of_both(recipe: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
from hpcscale import config, ranks
from hpcscale.train import loop, state
real = loop.LOSSES["logistic"]
loop.LOSSES["logistic"] = lambda *a: real(*a) * (float("inf") if ranks.rank() == 1 else 1)
try:
    settings = config.load(Path({str(recipe)!r}), ["divergence.skips=0", "divergence.rollbacks=0"])
    loop.train(settings, Path({str(tmp_path / "run")!r}))
except state.Diverged as error:
    Path({str(tmp_path)!r}, f"rank{{ranks.rank()}}").write_text(str(error))
    sys.exit(1)
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 1
    samples, _ = Order(tiny.PICTURES, 3).samples_at(np.arange(4))
    wanted = "the loss of step 1 is inf; its samples: " + ", ".join(f"{i} ({i:02}.jpg)" for i in samples)
    found = [(tmp_path / f"rank{r}").read_text() for r in (0, 1)]
    assert found == [f"{wanted}; 1 bad steps within 100, and 0 returns before"] * 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyError("why"), 70, "KeyError: 'why'"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 70, "Input/output error"),
        (ranks.RankLost("rank 3 has gone"), 76, "rank 3 has gone"),
        (ranks.SlurmError("not in block order"), 1, "not in block order"),
    ],
)
def test_codes_that_the_batch_shell_knows(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loop, "train", fail)
    result = cli(tmp_path / "run", "--config", recipe)
    assert (result.exit_code, text in result.output) == (code, True), result.output


def test_the_log_names_the_job(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = tmp_path / "jobs" / "7.2"
    attempt.mkdir(parents=True)
    (tmp_path / "jobs" / "7.json").write_text('{"commit": "abc"}')
    for name, value in {"HPCSCALE_ATTEMPT": str(attempt), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n1")
    (attempt / "stop").touch()
    with pytest.raises(loop.Interrupted, match="after step 1"):
        train(tiny.settings(recipe), tmp_path)
    (line,) = tiny.events(tmp_path, "start")
    found = {key: line[key] for key in ("job", "attempt", "nodes", "commit")}
    assert found == {"job": "7", "attempt": 2, "nodes": "n1", "commit": "abc"}
