"""A probe of a source: features once, the optimum, one evaluation; the network as it was."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from grounds import LEAKED, Grounds, plan

from hpcscale import config, ranks
from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.evaluate import evaluations
from hpcscale.files import FileError
from hpcscale.models import networks
from hpcscale.report.transfers import summary
from hpcscale.transfer import features, linear, neighbours
from hpcscale.transfer.arrays import read_arrays
from hpcscale.transfer.features import Pictures, extract
from hpcscale.transfer.linear import probe
from hpcscale.transfer.probe import fit
from hpcscale.transfer.sgd import fit_sgd
from hpcscale.transfer.trials import TransferError

SETS = ("probe.l2=[0.001, 0.1]", "probe.tolerance=1e-8", "probe.knn=3", "probe.weighting='cosine'")


@pytest.fixture(scope="module")
def probed(grounds: Grounds, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("probed")
    said = probe(plan(grounds, *SETS), out)
    assert said is not None
    return out, said


def test_row_40_the_probe_is_the_optimum_of_the_networks_features(
    grounds: Grounds, probed: tuple[Path, dict[str, Any]]
) -> None:
    """Features by torch alone, one picture at a time; the objective of a fit to them."""
    _, said = probed
    found = said["results"][0]["probe"]
    trained = networks.load(grounds.run)
    data = open_data(plan(grounds).recipe["data"]["train"])
    seen = config.seen(trained.settings)
    rows = []
    for sample in range(data.samples):
        (batch,) = features.pipeline.evaluate_batches(
            data, np.array([sample]), seen, batch=1, device=torch.device("cpu")
        )
        pixels = batch.images.float() / 127.5 - 1
        with torch.no_grad():
            rows.append(trained.model.maps(pixels).mean((2, 3)).numpy())
    labels = np.arange(data.samples) % 3
    exact = fit(np.concatenate(rows), labels, found["l2"])
    assert found["objective"] == pytest.approx(exact.objective, rel=1e-5)
    assert found["weight_norm"] == pytest.approx(exact.weight_norm, rel=1e-4)
    assert found["converged"]
    assert found["gradient_norm"] <= 1e-8
    assert (found["pictures"], found["left_out"]) == (26, 0)


def test_row_40_the_result_is_audited_and_told_as_any_other(probed: tuple[Path, dict[str, Any]]) -> None:
    out, said = probed
    (result,) = said["results"]
    assert result["audit"]["duplicates"] == LEAKED
    assert (said["method"], said["keys"]) == ("probe", {})
    assert json.loads((out / "transfer.json").read_text()) == said
    results, names = evaluations.read(out / "last-0" / "evaluations" / "validation-00000000")
    assert len(names) == result["metrics"]["samples"] == 26
    assert (results.guesses[:, 0] == results.truths).mean() == pytest.approx(result["metrics"]["top1"])


def test_row_40_features_are_computed_once_and_can_be_read_by_themselves(
    grounds: Grounds, probed: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = probed
    before = {file.name: file.read_bytes() for file in (out / "features").iterdir()}
    found = said["results"][0]["probe"]
    assert set(before) == {found["features"], found["knn"]["features"]}  # no parts are left
    monkeypatch.setattr(features, "_see", None)
    again = probe(plan(grounds, *SETS), out)
    assert again is not None
    assert {file.name: file.read_bytes() for file in (out / "features").iterdir()} == before
    assert again["results"][0]["metrics"] == said["results"][0]["metrics"]
    words = ["--features", out / "features" / found["features"], "--l2", found["l2"], "--knn", 3, "--json",
             "--test", out / "features" / found["knn"]["features"], "--weighting", "cosine"]  # fmt: skip
    alone = json.loads(CliRunner().invoke(main, ["transfer", "probe", *map(str, words)]).stdout)
    assert alone["objective"] == pytest.approx(found["objective"], rel=1e-9)
    assert alone["accuracy"] == said["results"][0]["metrics"]["top1"]
    assert alone["knn_accuracy"] == found["knn"]["top1"]


def test_row_40_neighbours_are_asked_about_the_test_set_after_the_last_fit(
    grounds: Grounds, probed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test set comes to light only when the probe is fitted."""
    out, said = probed
    knn = said["results"][0]["probe"]["knn"]
    training, test = (
        read_arrays(out / "features" / name)
        for name in (said["results"][0]["probe"]["features"], knn["features"])
    )
    found = neighbours.predict(training.x, training.y, test.x, 3, "cosine")
    assert knn["top1"] == (found == test.y).mean()
    assert (knn["k"], knn["weighting"], knn["pictures"]) == (3, "cosine", 26)
    hidden, real = grounds.test.with_name("hidden"), linear.path.fit_best

    def fitted(*words: Any) -> Any:
        chosen = real(*words)
        hidden.rename(grounds.test)
        return chosen

    monkeypatch.setattr(linear.path, "fit_best", fitted)
    grounds.test.rename(hidden)
    try:
        again = probe(plan(grounds, *SETS), tmp_path)
    finally:
        if hidden.exists():
            hidden.rename(grounds.test)
    assert again is not None
    assert again["results"][0]["probe"]["knn"] == knn


def test_row_40_sgd_probes_a_source(grounds: Grounds, probed: tuple[Path, dict[str, Any]]) -> None:
    """As Mahajan et al. 2018; within 1e-4 of the optimum, with the bits of SGD on these features."""
    out, _ = probed
    said = probe(plan(grounds, "probe.l2=[0.1]", "probe.solver='sgd'", "target.seeds=[3]"), out)
    assert said is not None
    found = said["results"][0]["probe"]
    data = read_arrays(out / "features" / found["features"])
    assert found["converged"]
    assert found["objective"] == fit_sgd(*data, 0.1, 3).objective
    assert 0 <= found["objective"] - fit(*data, 0.1).objective <= 1e-4
    assert (found["solver"], found["path"], "knn" in found) == ("sgd", [], False)
    assert f"gap at most {found['gap']:.2g}" in summary([said])
    with pytest.raises(config.ConfigError, match=r"solver 'sgd' takes one 'l2', found \[1e-06"):
        plan(grounds, "probe.solver='sgd'")


def test_more_neighbours_than_pictures_are_refused_before_any_work(grounds: Grounds, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"probe.knn is 27, .* has 26 pictures of one class"):
        probe(plan(grounds, "probe.knn=27"), tmp_path)
    assert not (tmp_path / "features").exists()


def test_what_is_not_reached_is_told_and_ends_with_1(
    grounds: Grounds, probed: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = probed
    words = ["transfer", "probe", grounds.run, "--config", grounds.file, "--out", out]
    sets = ["probe.l2=[0.1]", "probe.tolerance=1e-30", "probe.knn=3"]
    done = CliRunner().invoke(main, [*map(str, words), *(f"--set={one}" for one in sets)])
    assert done.exit_code == 1
    assert "not converged: the gradient's norm is" in done.stderr
    assert "(not converged); accuracy of 3 nearest training pictures 0." in done.stdout


def test_features_are_the_same_bits_for_any_number_of_ranks(
    grounds: Grounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks that do their parts one after the other; the file has the same bytes too."""
    monkeypatch.setattr(features, "PART", 7)
    trained = networks.load(grounds.run)
    data = open_data(plan(grounds).recipe["data"]["train"])
    samples = np.arange(1, data.samples, dtype=np.int64)
    pictures = Pictures(data, samples, (samples % 5).astype(np.int32))
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    whole = extract(trained.model.train(), pictures, trained.input, tmp_path / "one.npz", 3)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "barrier", lambda: None)
    parts = tmp_path / "two.parts"
    for rank in (1, 0):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        found = extract(trained.model, pictures, trained.input, tmp_path / "two.npz", 3)
        if rank:  # those of rank 0 are still missing
            assert found is None
            assert sorted(file.name for file in parts.iterdir()) == ["00001.npz", "00003.npz"]
    assert whole is not None
    assert found is not None
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert not parts.exists()
    assert (whole.x == found.x).all()
    assert found.x.dtype == np.float32
    assert found.x.shape == (25, trained.model.classifier.in_features)
    assert np.array_equal(found.y, samples % 5)
    assert trained.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.model.state_dict().items())


def test_an_interrupted_call_goes_on_and_damaged_features_are_named(grounds: Grounds, tmp_path: Path) -> None:
    trained = networks.load(grounds.run)
    data = open_data(plan(grounds).recipe["data"]["train"])
    pictures = Pictures(data, np.arange(4), np.arange(4, dtype=np.int32))
    (tmp_path / "f.parts").mkdir()
    done = np.full((3, trained.model.classifier.in_features), 7, np.float32)
    np.savez(tmp_path / "f.parts" / "00000.npz", x=done, samples=np.array([0, 1, 3]))  # 2: not decoded
    found = extract(trained.model, pictures, trained.input, tmp_path / "f.npz")
    assert found is not None
    assert (found.x == 7).all()
    assert found.y.tolist() == [0, 1, 3]
    (tmp_path / "f.npz").write_bytes((tmp_path / "f.npz").read_bytes()[:500])
    with pytest.raises(FileError, match=r"f\.npz: not a \.npz"):
        extract(trained.model, pictures, trained.input, tmp_path / "f.npz")


def test_two_ranks_find_the_same(
    grounds: Grounds, probed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, said = probed
    words = ["transfer", "probe", grounds.run, "--config", grounds.file, "--out", tmp_path, "--ranks", "2"]
    words += [*(word for one in SETS for word in ("--set", one)), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hpcscale", *map(str, words)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (one,), (other,) = json.loads(done.stdout)["results"], said["results"]
    assert (one["metrics"]["top1"], one["probe"]["l2"]) == (other["metrics"]["top1"], other["probe"]["l2"])
    assert one["audit"] | {"pretraining": ""} == other["audit"] | {"pretraining": ""}
    assert one["probe"]["knn"] == other["probe"]["knn"]
    for name in (one["probe"]["features"], one["probe"]["knn"]["features"]):
        assert (tmp_path / "features" / name).read_bytes() == (out / "features" / name).read_bytes()


def test_other_weights_have_other_features(grounds: Grounds, tmp_path: Path) -> None:
    said = probe(plan(grounds, "probe.l2=[0.01]", "target.seeds=[0, 1]", source="random"), tmp_path)
    assert said is not None
    assert len(list((tmp_path / "features").iterdir())) == 2
    objectives = [result["probe"]["objective"] for result in said["results"]]
    assert objectives[0] != objectives[1]
