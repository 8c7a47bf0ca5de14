"""`transfer probe SOURCE`: a linear classifier on what a network sees, the network as it is (Mahajan et al.
2018, section 3, "feature transfer").

In: a Plan. The training set's features are computed once; the probe is fitted to its global optimum
(probe.py), with the l2 that is best on a held-out part (path.py), or by SGD. Then the probe becomes the
network's classifier, and this network is evaluated on the test set as every other, which nothing opens
before. Perhaps the nearest training pictures vote on the test set too (neighbours.py).
"""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale import config, ranks
from hpcscale.config import Config
from hpcscale.data.parts import Part
from hpcscale.data.store import DataSet, open_data
from hpcscale.evaluate import classify
from hpcscale.evaluate.sets import open_set
from hpcscale.labels.targets import Targets
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.models import networks, surgery
from hpcscale.models.backbone import Network
from hpcscale.models.preprocessing import preprocessing
from hpcscale.progress import bar
from hpcscale.samples.chosen import choose, open_vocabulary
from hpcscale.train import process, run_folder
from hpcscale.transfer import neighbours, path, result, settings
from hpcscale.transfer.arrays import Arrays
from hpcscale.transfer.features import Pictures, extract
from hpcscale.transfer.path import Held, Way
from hpcscale.transfer.probe import Fit
from hpcscale.transfer.settings import Plan, Probe
from hpcscale.transfer.trials import TransferError

# Keys that a recipe needs and a probe does not.
UNUSED = {"schedule.lr": 1.0, "train.steps": 1, "train.batch": 64}
NEVER = -1e4  # bias of a class that no training picture has


def probe(plan: Plan, out: Path, part: Part | None = None) -> dict[str, Any] | None:
    """Probe the source on a target, into the folder `out` (collective): `OUT/features`, files of arrays, and
    `OUT/last-SEED` with the evaluation. A seed is of the network's random weights, of what is held out, and
    of SGD's order. There are no trials, so a part does nothing. Returns what `OUT/transfer.json` says."""
    if part:
        return None
    found = []
    for seed in plan.own.target.seeds:
        given = {key: value for key, value in UNUSED.items() if not _has(plan.recipe, key)}
        chosen = settings.last(plan, {**given, "loss.name": "softmax"}, seed)
        run = out / f"last-{seed}"
        if ranks.rank() == 0:
            run_folder.agree(run, chosen)
        said, metrics = _probed(plan, chosen, out, run)
        audited = ranks.broadcast_object(result.leaks_of(plan, out, run) if ranks.rank() == 0 else None)
        found.append({"seed": seed, "run": run.name, "metrics": metrics, **audited, "probe": said})
    return result.write(plan, out, {"method": "probe"}, found)


def _has(recipe: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return name in recipe.get(section, {})


def _probed(plan: Plan, chosen: Config, out: Path, run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit and evaluate with one seed: what is said of the probe, and the metrics."""
    own, device = plan.own.probe, process.prepare(chosen)
    data, labels = open_data(chosen.data.train), open_vocabulary(chosen)
    torch.manual_seed(chosen.train.seed)
    model = networks.build(chosen.model, len(labels.classes))
    surgery.begin(model, chosen.model, run, {"preprocessing": preprocessing(chosen, data.stored_size)})
    model.to(device).eval()
    ids = choose(chosen, data, labels).samples
    pictures = _single(data, labels, np.sort(ids.take(np.arange(ids.length, dtype=np.int64))))
    if len(np.unique(pictures.labels)) < 2:
        raise TransferError(f"{chosen.data.train}: its pictures have fewer than two classes")
    if (own.knn or 0) > (most := len(pictures.samples)):
        raise TransferError(f"probe.knn is {own.knn}, {chosen.data.train} has {most} pictures of one class")
    listed = _listed(plan, chosen, data, labels)
    file, training = _features(plan, chosen, model, pictures, out / "features" / "training")
    said = None
    if training:
        share = plan.recipe["data"].get("held_out") or settings.USUAL
        held = share if listed is None else _rows(out / "features" / file, listed)
        said, fitted = _fitted(own, training, held, chosen.train.seed)
        said |= {"left_out": ids.length - most, "features": file}  # those without exactly one class
        _classify_by(model, fitted)
    said = ranks.broadcast_object(said)
    ranks.broadcast(model.classifier.state_dict().values())
    subset = open_set(chosen, "validation", labels)
    evaluation = classify.evaluate_set(model, chosen, subset, labels, own.batch, device)
    pictures = _single(subset.data, labels, subset.samples)
    if own.knn and len(pictures.samples):
        file, test = _features(plan, chosen, model, pictures, out / "features" / "test")
        voted = _voted(own, training, test) | {"features": file} if training and test else None
        said["knn"] = ranks.broadcast_object(voted)
    if ranks.rank() == 0:
        run.mkdir(parents=True, exist_ok=True)
        run_folder.keep(run, chosen)
        classify.save(evaluation, run, subset, 0, labels)
    ranks.barrier()
    return said, dict(evaluation.metrics)


def _features(
    plan: Plan, chosen: Config, model: Network, pictures: Pictures, stem: Path
) -> tuple[str, Arrays | None]:
    """The name of the file `STEM-KEY.npz`, and what is in it, on rank 0."""
    file = stem.with_name(f"{stem.name}-{_key(plan, chosen, pictures)}.npz")
    with bar() as progress:
        return file.name, extract(model, pictures, config.seen(chosen), file, plan.own.probe.batch, progress)


def _listed(plan: Plan, chosen: Config, data: DataSet, labels: Vocabulary) -> NDArray[np.int64] | None:
    """The samples of `data.held_out_names`, if the file has that key. Raises what `choose` does."""
    if (names := plan.recipe["data"].get("held_out_names")) is None:
        return None
    listing = {"held_out_names": Path(names)}
    judged = chosen.model_copy(update={"data": chosen.data.model_copy(update=listing)})
    ids = choose(judged, data, labels).held_out
    return ids.take(np.arange(ids.length, dtype=np.int64))


def _rows(file: Path, listed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows of a file of features are of these samples  # (n,)"""
    with np.load(file) as stored:
        found = np.isin(stored["samples"], listed)
    if not found.any():
        raise TransferError("data.held_out_names: none of them has exactly one class and can be decoded")
    return found


def _fitted(own: Probe, data: Arrays, held: Held, seed: int) -> tuple[dict[str, Any], Fit]:
    begin, way = time.monotonic(), Way(own.solver, own.tolerance, held, seed)
    with bar() as progress:
        found = path.fit_best(*data, own.l2, way, progress)
    fitted = found.probe
    names = ("l2", "objective", "gradient_norm", "gap", "weight_norm", "converged")
    said = {
        "solver": own.solver,
        **{name: getattr(fitted, name) for name in names},
        "pictures": len(data.y),
        "seconds": round(time.monotonic() - begin, 3),
        "path": [{"l2": one.l2, "held_out": share, "converged": one.converged} for one, share in found.tried],
    }
    return said, fitted


def _voted(own: Probe, training: Arrays, test: Arrays) -> dict[str, Any]:
    """The accuracy of the nearest training pictures on the test pictures that have exactly one class."""
    k = own.knn or 0
    with bar() as progress:
        found = neighbours.predict(training.x, training.y, test.x, k, own.weighting, progress)
    top1 = float((found == test.y).mean())
    return {"k": k, "weighting": own.weighting, "top1": top1, "pictures": len(test.y)}


def _single(data: DataSet, labels: Vocabulary, samples: NDArray[np.int64]) -> Pictures:
    """Those of the samples whose tags select exactly one class."""
    truths = Targets(labels, data.tags, "softmax", 1).truths(*data.tag_rows(samples))
    return Pictures(data, samples[truths >= 0], truths[truths >= 0])


def _classify_by(model: Network, fitted: Fit) -> None:
    """Make the probe the network's classifier."""
    head = model.classifier
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(NEVER)
        head.weight[fitted.classes] = torch.from_numpy(fitted.weights.T).float().to(head.weight.device)
        head.bias[fitted.classes] = torch.from_numpy(fitted.bias).float().to(head.bias.device)


def _key(plan: Plan, chosen: Config, pictures: Pictures) -> str:
    """Of the features of this network and these pictures with these labels, seen so."""
    weights = plan.source.place and result.weights_of(plan)
    seed = chosen.train.seed if plan.source.place is None else None
    said = [weights, seed, pictures.data.digest, config.seen(chosen).model_dump(mode="json"),
            chosen.model.model_dump(mode="json"), plan.own.probe.batch]  # fmt: skip
    digest = hashlib.blake2b(json.dumps(said, default=str).encode(), digest_size=8)
    for array in pictures[1:]:
        digest.update(array.tobytes())
    return digest.hexdigest()
