"""The result of a transfer: the last training, on all of the training set, and its one evaluation on the test
set, with what near-duplicates of the pretraining data do to it.

In: a Plan and the chosen keys. Out: `OUT/last-SEED`, a run folder for each seed; `OUT/hashes`; and
`OUT/transfer.json`, which `hpcscale report` reads.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcscale import __version__, files, ranks
from hpcscale.data.store import open_data
from hpcscale.dedup import hashes
from hpcscale.dedup.search import Near, search
from hpcscale.evaluate import leaks
from hpcscale.files import Told
from hpcscale.models import checkpoint, weights
from hpcscale.progress import Progress, bar
from hpcscale.train import pretrain
from hpcscale.transfer import settings
from hpcscale.transfer.settings import Plan
from hpcscale.transfer.trials import TransferError, judged

FILE = "transfer.json"
METHOD = "pdq"
MOST = 5_000_000  # pictures that are hashed here, some minutes of a node


def last(plan: Plan, out: Path, keys: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Train with the chosen keys on all of the training set, once for each of `target.seeds`, evaluate on the
    test set, audit, and write `OUT/transfer.json` (collective). Returns what it says, on all ranks.

    facts: what else it says, such as how the keys were chosen. Raises what training does, and TransferError.
    """
    found = []
    for seed in plan.own.target.seeds:
        chosen = settings.last(plan, keys, seed)
        run = out / f"last-{seed}"
        pretrain.train(chosen, run)
        metrics = judged(run, chosen)
        audited = leaks_of(plan, out, run) if ranks.rank() == 0 else None
        found.append({"seed": seed, "run": run.name, "metrics": metrics, **ranks.broadcast_object(audited)})
    return write(plan, out, {"keys": dict(keys), **facts}, found)


def write(
    plan: Plan, out: Path, facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write `OUT/transfer.json` (collective). results: of each seed, its metrics and audit. Returns what the
    file says, on all ranks."""
    said = {
        "format": "hpcscale transfer",
        "version": __version__,
        "source": plan.source.name,
        "weights": weights_of(plan),
        "target": plan.target,
        "task": plan.own.target.task,  # of VTAB, whose switches held
        "metric": plan.own.target.metric,
        "keys": {},
        **facts,
        "results": list(results),
    }
    if ranks.rank() == 0:
        files.write_file(out / FILE, (json.dumps(said, indent=2, default=str) + "\n").encode())
    ranks.barrier()
    return said


def weights_of(plan: Plan) -> dict[str, Any] | None:
    """Which weights were transferred."""
    if plan.source.place is None:
        return None
    found, place = None, plan.source.place
    if ranks.rank() == 0:
        newest = checkpoint.find(place) if plan.source.run else None
        file, sha256 = (newest.file, newest.sha256) if newest else (place, weights.digest(place))
        found = {"file": str(file), "sha256": sha256}
    stated: dict[str, Any] = ranks.broadcast_object(found)
    return stated


def leaks_of(plan: Plan, out: Path, run: Path) -> dict[str, Any]:
    """Metrics of a result without the test pictures that have a near-duplicate in the pretraining data, for
    JSON: `audit`, or why there is none, `unaudited`."""
    target = plan.own.target
    try:
        pairs = run / "pairs" / "validation.tsv"
        pairs.parent.mkdir(exist_ok=True)
        with bar() as progress:
            known = _pretraining(plan, out, progress)
            test = out / "hashes" / "test.h5"
            hashes.hash_source(target.test, test, METHOD, progress=progress)
            searched = search(known, test, pairs, Near(target.radius), progress=progress)
        (folder,) = (run / "evaluations").glob("validation-*[0-9]")
        found = leaks.audit(folder, pairs, None, within=False, side="b")
    except Told as error:
        return {"audit": None, "unaudited": str(error)}
    return {
        "audit": {
            "samples": found.samples,
            "duplicates": found.duplicates,
            "full": found.parts.full,
            "dedup": found.parts.dedup,
            "lower_bound": found.parts.lower_bound,
            "pretraining": str(known),
            "radius": target.radius,
            "left_out": searched.left_out_b,  # test pictures whose hash says too little
        }
    }


def _pretraining(plan: Plan, out: Path, progress: Progress) -> Path:
    """The hash file of the pretraining pictures. Raises TransferError where there is none."""
    given, run = plan.own.target.pretraining, plan.source.run
    if given is not None:
        return given
    if plan.source.place is None:
        raise TransferError("random weights have seen no pictures")
    if run is None:
        raise TransferError("a file of weights does not say what it saw: set target.pretraining")
    if not (run.data.train / "plan.json").exists():
        raise TransferError(
            f"{run.data.train}, which the run was trained on, is not there; set target.pretraining"
        )
    data = open_data(run.data.train)
    if data.samples > MOST:
        raise TransferError(
            f"{run.data.train} has {data.samples:,} pictures: hash them by `hpcscale dedup hash`, as a job, "
            "and set target.pretraining"
        )
    file = out / "hashes" / "pretraining.h5"
    hashes.hash_source(run.data.train, file, METHOD, progress=progress)
    return file
