"""Evaluation over batches and ranks, and the folder it leaves."""

import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import average_precision as oracle
from torch import nn

from hpcscale import ranks
from hpcscale.evaluate import classify, evaluations, metrics
from hpcscale.inputs.pipeline import Batch

CLASSES, SAMPLES = 130, 23
CANDIDATES = np.arange(0, CLASSES, 3, dtype=np.int32)


class Scores(nn.Module):
    """A model whose scores of sample i are row i of a table: a picture's first value is its sample id."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.from_numpy(table)

    def forward(self, images):
        assert not self.training
        return self.table[((images[:, 0, 0, 0] + 1) * 127.5).round().long()]


class Labels:
    """Stands for Targets: tag ids are class ids, without ancestors."""

    def rows(self, offsets, ids):
        rows = np.zeros((offsets.size - 1, CLASSES), np.float32)
        rows[np.repeat(np.arange(offsets.size - 1), np.diff(offsets)), ids] = 1
        return rows

    def labels(self, offsets, ids):
        return offsets, ids

    def truths(self, offsets, ids):
        single = np.diff(offsets) == 1
        return np.where(single, ids[np.minimum(offsets[:-1], ids.size - 1)], -1).astype(np.int32)


TABLE = np.random.default_rng(5).integers(0, 40, (SAMPLES, CLASSES)).astype(np.float32)
POSITIVE = np.random.default_rng(6).random((SAMPLES, CLASSES)) < 0.02
WEIGHTS = POSITIVE.sum(0).astype(float)


def batches_of(samples, batch):
    samples = np.asarray(samples, np.int64)
    for part in (samples[start : start + batch] for start in range(0, samples.size, batch)):
        images = torch.zeros(part.size, 3, 4, 4, dtype=torch.uint8).to(memory_format=torch.channels_last)
        images[:] = torch.from_numpy(part)[:, None, None, None]
        offsets = np.append(0, np.cumsum(POSITIVE[part].sum(1)))
        yield Batch(images, offsets, np.nonzero(POSITIVE[part])[1].astype(np.int32), part)


def run(samples=range(SAMPLES), batch=5, table=TABLE):
    wanted = np.array([1, 20])
    batches = batches_of(samples, batch)
    return classify.evaluate(Scores(table), batches, Labels(), "logistic", WEIGHTS, CANDIDATES, wanted)


def fake_ranks(monkeypatch, size, work):
    """Run work(rank) on `size` threads whose gather joins what all of them bring."""
    barrier, here, brought = threading.Barrier(size), threading.local(), [None] * size

    def gather(array):
        brought[here.rank] = array
        barrier.wait()
        joined = np.concatenate(brought)
        barrier.wait()
        return joined

    monkeypatch.setattr(ranks, "gather", gather)
    done = [None] * size

    def body(rank):
        here.rank = rank
        done[rank] = work(rank)

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return done


def equal(a, b):
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def test_metrics_come_from_the_best_classes_and_the_labels():
    found = run()
    assert found.metrics["samples"] == SAMPLES
    assert found.results.classes.shape == (SAMPLES, metrics.TOP)
    expected = nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(TABLE), torch.from_numpy(POSITIVE.astype(np.float32)), reduction="sum"
    )
    assert found.metrics["loss"] == pytest.approx(float(expected) / SAMPLES, rel=1e-6)


def test_equal_scores_rank_the_lower_class_first():
    found = run(table=np.zeros_like(TABLE)).results
    assert (found.classes == np.arange(metrics.TOP)).all()
    assert (found.guesses == CANDIDATES[:5]).all()


def test_only_candidates_compete_for_accuracy():
    expected = CANDIDATES[oracle.best(TABLE[:, CANDIDATES], 5)]
    assert (run().results.guesses == expected).all()


@pytest.mark.parametrize(("place", "precision"), [(98, 1 / 99), (99, 1 / 100), (100, 0.0)])
def test_the_hundredth_class_is_kept_and_the_next_is_not(monkeypatch, place, precision):
    """mAP@100 of one picture whose only label has that place."""
    scores = np.arange(CLASSES, 0, -1, dtype=np.float32)[None]
    positive = np.arange(CLASSES)[None] == place
    monkeypatch.setattr(sys.modules[__name__], "POSITIVE", positive)
    found = classify.evaluate(
        Scores(scores), batches_of([0], 1), Labels(), "logistic", np.ones(CLASSES), CANDIDATES, np.zeros(1)
    )
    assert found.results.classes.shape == (1, 100)
    assert found.metrics["image_map100"] == pytest.approx(precision)
    assert found.baseline["image_map100"] == pytest.approx(0.01 if precision else 0)  # a hundred equal scores


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("samples", [range(SAMPLES), range(1), range(SAMPLES - 1, -1, -1)])
def test_every_number_of_ranks_gives_the_same_bits(monkeypatch, size, samples):
    alone = run(samples)
    shares = np.array_split(np.array(samples), size)
    for found in fake_ranks(monkeypatch, size, lambda rank: run(shares[rank], batch=4)):
        assert found.metrics == alone.metrics
        assert found.baseline == alone.baseline
        assert equal(found.results, alone.results)
        assert equal(found[4:], alone[4:])


def test_a_sample_that_comes_twice_counts_once():
    assert run([*range(SAMPLES), 3, 3, 4]).metrics == run().metrics


def test_the_model_keeps_its_mode():
    model = Scores(TABLE).train()
    none = np.zeros(0, np.int64)
    classify.evaluate(model, batches_of(range(2), 2), Labels(), "logistic", WEIGHTS, CANDIDATES, none)
    assert model.training


def test_scores_that_are_not_numbers_are_an_error_that_names_the_sample():
    table = TABLE.copy()
    table[7, 100] = np.nan
    with pytest.raises(classify.EvaluateError, match=r"1 samples, ids \[7\]"):
        run(table=table)


def test_thumbnails_are_the_pictures_asked_for():
    images = torch.stack([torch.full((9, 9, 3), value, dtype=torch.uint8) for value in (0, 128, 255)])
    images = images.permute(0, 3, 1, 2)
    batch = Batch(images, np.zeros(4, np.int64), np.zeros(0, np.int32), np.array([5, 6, 7]))
    labels = SimpleNamespace(
        rows=lambda *_: np.zeros((3, 2), np.float32),
        labels=lambda *_: (np.zeros(4, np.int64), np.zeros(0, np.int32)),
        truths=lambda *_: np.full(3, -1, np.int32),
    )
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    candidates, wanted = np.arange(2, dtype=np.int32), np.array([7, 5])
    found = classify.evaluate(model, [batch], labels, "softmax", np.ones(2), candidates, wanted)
    assert found.thumbnail_samples.tolist() == [5, 7]
    assert found.thumbnails.shape == (2, classify.SIDE, classify.SIDE, 3)
    assert np.unique(found.thumbnails[0]).tolist() == [0]
    assert np.unique(found.thumbnails[1]).tolist() == [255]


def test_a_folder_gives_back_what_was_saved_and_replaces_an_older_one(tmp_path):
    found = run()
    names = [f"pictures/{i}.jpg" for i in range(SAMPLES)]
    folder = tmp_path / "evaluations" / "held_out-00000001"
    for value in (1, 2):
        rows = [(c, f"a, b {c}", 1, 1, 0.5, "") for c in range(int(found.results.classes.max()) + 1)]
        thumbnails = (found.thumbnail_samples, found.thumbnails)
        evaluations.save(folder, {"step": value}, rows, found.results, names, thumbnails)
        assert json.loads((folder / "metrics.json").read_text()) == {"step": value}
    results, read_names = evaluations.read(folder)
    assert equal(results, found.results)
    assert read_names == names
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
