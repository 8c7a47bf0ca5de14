"""`transfer probe SOURCE`: a linear classifier on what a network sees, the network as it is (Mahajan et al.
2018, section 3, "feature transfer").

In: a Plan. The training set's features are computed once; the probe is fitted to its global optimum
(probe.py), with the l2 that is best on a held-out part (path.py). Then the probe becomes the network's
classifier, and this network is evaluated on the test set as every other, which nothing opens before.
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
from hpcscale.transfer import features, path, result, settings
from hpcscale.transfer.probe import Fit, Goal, fit
from hpcscale.transfer.settings import Plan
from hpcscale.transfer.trials import TransferError

# Keys that a recipe needs and a probe does not.
UNUSED = {"schedule.lr": 1.0, "train.steps": 1, "train.batch": 64}
NEVER = -1e4  # bias of a class that no training picture has


def probe(plan: Plan, out: Path, part: Part | None = None) -> dict[str, Any] | None:
    """Probe the source on a target, into the folder `out` (collective): `OUT/features`, and `OUT/last-SEED`
    with the evaluation. A seed is of the network's random weights, or of what is held out. There are no
    trials, so a part does nothing. Returns what `OUT/transfer.json` says."""
    if part:
        return None
    found = []
    for seed in plan.own.target.seeds:
        given = {key: value for key, value in UNUSED.items() if not _has(plan.recipe, key)}
        chosen = settings.last(plan, {**given, "loss.name": "softmax"}, seed)
        run = out / f"last-{seed}"
        said, metrics = _probed(plan, chosen, out, run)
        audited = ranks.broadcast_object(result.leaks_of(plan, out, run) if ranks.rank() == 0 else None)
        found.append({"seed": seed, "run": run.name, "metrics": metrics, **audited, "probe": said})
    return result.write(plan, out, {"method": "probe"}, found)


def _has(recipe: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return name in recipe.get(section, {})


def _probed(plan: Plan, chosen: Config, out: Path, run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit and evaluate with one seed: what is said of the probe, and the metrics."""
    device = process.prepare(chosen)
    data, labels = open_data(chosen.data.train), open_vocabulary(chosen)
    torch.manual_seed(chosen.train.seed)
    model = networks.build(chosen.model, len(labels.classes))
    surgery.begin(model, chosen.model, run, {"preprocessing": preprocessing(chosen, data.stored_size)})
    model.to(device).eval()
    ids = choose(chosen, data, labels).samples
    samples = np.sort(ids.take(np.arange(ids.length, dtype=np.int64)))
    listed = _listed(plan, chosen, data, labels)
    place = out / "features" / _key(plan, chosen, data)
    with bar() as progress:
        seen, batch = config.seen(chosen), plan.own.probe.batch
        x, samples = features.extract(model, data, samples, seen, place, batch, progress)
    said = None
    if ranks.rank() == 0:
        held = None if listed is None else np.isin(samples, listed)
        said, fitted = _fitted(plan, x, _truths(data, labels, samples), held, chosen.train.seed)
        _classify_by(model, fitted)
    said = ranks.broadcast_object(said)
    ranks.broadcast(model.classifier.state_dict().values())
    subset = open_set(chosen, "validation", labels)
    evaluation = classify.evaluate_set(model, chosen, subset, labels, batch, device)
    if ranks.rank() == 0:
        run.mkdir(parents=True, exist_ok=True)
        run_folder.keep(run, chosen)
        classify.save(evaluation, run, subset, 0, labels)
    ranks.barrier()
    return said, dict(evaluation.metrics)


def _fitted(
    plan: Plan,
    x: NDArray[np.float32],
    y: NDArray[np.int32],
    held: NDArray[np.bool_] | None,
    seed: int,
) -> tuple[dict[str, Any], Fit]:
    """held: which rows judge the strengths  # (n,); None: a share of each class, drawn by the seed."""
    own, single = plan.own.probe, y >= 0
    if len(np.unique(y[single])) < 2:
        raise TransferError(f"{plan.recipe['data']['train']}: its pictures have fewer than two classes")
    x, y = (x, y) if single.all() else (x[single], y[single])
    if held is not None and not (held := held[single]).any():
        raise TransferError("data.held_out_names: none of them has exactly one class and can be decoded")
    begin, goal = time.monotonic(), Goal(own.tolerance)
    with bar() as progress:
        if len(own.l2) == 1:
            found = path.Chosen(fit(x, y, own.l2[0], goal=goal, progress=progress), [])
        else:
            share = plan.recipe["data"].get("held_out") or settings.USUAL
            out = path.held_out(y, share, seed) if held is None else held
            found = path.choose(x, y, own.l2, out, goal, progress)
    fitted = found.probe
    names = ("l2", "objective", "gradient_norm", "gap", "weight_norm", "converged")
    said = {name: getattr(fitted, name) for name in names} | {
        "pictures": len(y),
        "left_out": int((~single).sum()),  # without exactly one class
        "seconds": round(time.monotonic() - begin, 3),
        "path": [{"l2": one.l2, "held_out": share, "converged": one.converged} for one, share in found.tried],
    }
    return said, fitted


def _listed(plan: Plan, chosen: Config, data: DataSet, labels: Vocabulary) -> NDArray[np.int64] | None:
    """The samples of `data.held_out_names`, if the file has that key. Raises what `choose` does."""
    if (names := plan.recipe["data"].get("held_out_names")) is None:
        return None
    listing = {"held_out_names": Path(names)}
    judged = chosen.model_copy(update={"data": chosen.data.model_copy(update=listing)})
    ids = choose(judged, data, labels).held_out
    return ids.take(np.arange(ids.length, dtype=np.int64))


def _truths(data: DataSet, labels: Vocabulary, samples: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n,): the class of a sample whose tags select exactly one, else -1."""
    targets = Targets(labels, data.tags, "softmax", 1)
    return targets.truths(*data.tag_rows(samples))


def _classify_by(model: Network, fitted: Fit) -> None:
    """Make the probe the network's classifier."""
    head = model.classifier
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(NEVER)
        head.weight[fitted.classes] = torch.from_numpy(fitted.weights.T).float().to(head.weight.device)
        head.bias[fitted.classes] = torch.from_numpy(fitted.bias).float().to(head.bias.device)


def _key(plan: Plan, chosen: Config, data: DataSet) -> str:
    """The folder of features of this network and these pictures, seen so."""
    weights = plan.source.place and result.weights_of(plan)
    seed = chosen.train.seed if plan.source.place is None else None
    said = [weights, seed, data.digest, config.seen(chosen).model_dump(mode="json"),
            chosen.model.model_dump(mode="json"), chosen.selection.model_dump(mode="json"),
            plan.own.probe.batch]  # fmt: skip
    return hashlib.blake2b(json.dumps(said, default=str).encode(), digest_size=8).hexdigest()
