"""A probe of a source: features once, the optimum, one evaluation; the network as it was."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grounds import LEAKED, Grounds, plan

from hpcscale import config, ranks
from hpcscale.data.store import open_data
from hpcscale.evaluate import evaluations
from hpcscale.models import networks
from hpcscale.transfer import features
from hpcscale.transfer.features import extract
from hpcscale.transfer.linear import probe
from hpcscale.transfer.probe import fit


@pytest.fixture(scope="module")
def probed(grounds: Grounds, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("probed")
    said = probe(plan(grounds, "probe.l2=[0.001, 0.1]", "probe.tolerance=1e-8"), out)
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


def test_features_are_computed_once(grounds: Grounds, probed: tuple[Path, dict[str, Any]]) -> None:
    out, said = probed
    (folder,) = (out / "features").iterdir()
    before = (folder / "00000.npz").stat().st_mtime_ns
    again = probe(plan(grounds, "probe.l2=[0.001, 0.1]", "probe.tolerance=1e-8"), out)
    assert again is not None
    assert (folder / "00000.npz").stat().st_mtime_ns == before
    assert again["results"][0]["metrics"] == said["results"][0]["metrics"]


def test_features_are_the_same_bits_for_any_number_of_ranks(
    grounds: Grounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks that do their parts one after the other."""
    monkeypatch.setattr(features, "PART", 7)
    trained = networks.load(grounds.run)
    data = open_data(plan(grounds).recipe["data"]["train"])
    samples = np.arange(data.samples, dtype=np.int64)
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    whole = extract(trained.model.train(), data, samples, trained.input, tmp_path / "one", 3)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "barrier", lambda: None)
    for rank in (1, 0):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        if rank:
            with pytest.raises(FileNotFoundError):  # those of rank 0 are still missing
                extract(trained.model, data, samples, trained.input, tmp_path / "two", 3)
            assert sorted(file.name for file in (tmp_path / "two").iterdir()) == ["00001.npz", "00003.npz"]
        else:
            divided = extract(trained.model, data, samples, trained.input, tmp_path / "two", 3)
    assert (whole.x == divided.x).all()
    assert (whole.samples == divided.samples).all()
    assert whole.x.shape == (26, trained.model.classifier.in_features)
    assert trained.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.model.state_dict().items())


def test_two_ranks_find_the_same(
    grounds: Grounds, probed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, said = probed
    words = ["transfer", "probe", grounds.run, "--config", grounds.file, "--out", tmp_path, "--ranks", "2"]
    sets = ["probe.l2=[0.001, 0.1]", "probe.tolerance=1e-8"]
    words += [*(word for one in sets for word in ("--set", one)), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hpcscale", *map(str, words)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (one,), (other,) = json.loads(done.stdout)["results"], said["results"]
    assert (one["metrics"]["top1"], one["probe"]["l2"]) == (other["metrics"]["top1"], other["probe"]["l2"])
    assert one["audit"] | {"pretraining": ""} == other["audit"] | {"pretraining": ""}
    pairs = zip(sorted(tmp_path.glob("features/*/*")), sorted(out.glob("features/*/*")), strict=True)
    for mine, theirs in pairs:
        assert (np.load(mine)["x"] == np.load(theirs)["x"]).all()


def test_other_weights_have_other_features(grounds: Grounds, tmp_path: Path) -> None:
    said = probe(plan(grounds, "probe.l2=[0.01]", "target.seeds=[0, 1]", source="random"), tmp_path)
    assert said is not None
    assert len(list((tmp_path / "features").iterdir())) == 2
    objectives = [result["probe"]["objective"] for result in said["results"]]
    assert objectives[0] != objectives[1]
