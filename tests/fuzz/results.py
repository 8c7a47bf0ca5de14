"""What is read of dense tasks, made bad: annotations, results, and the evaluation of a detector."""

import json
from pathlib import Path

from tests.fuzz import mutate
from tests.fuzz.harness import Case

# Annotations and results of each kind, as world_of_results.py makes them.
KINDS = {
    "boxes": ("coco.json", "boxes.json"),
    "masks": ("coco.json", "masks.json"),
    "keypoints": ("coco.json", "keypoints.json"),
    "voc": ("xml", "voc.json"),
    "segmentation": ("maps", "found-maps"),
}


def _spoil(case: Case, name: str) -> None:
    """A file, or one of a folder."""
    file = name if "." in name else f"{name}/{case.random.choice(sorted((case.place / name).iterdir())).name}"
    if file.endswith(".png"):
        case.spoil(file, mutate.data)
    elif file.endswith(".xml"):
        case.spoil(file, mutate.text, binary=False)
    else:
        how = mutate.document if case.random.random() < 0.8 else mutate.text
        case.spoil(file, how, binary=False)


def results(case: Case) -> None:
    """Refused by name, or shares."""
    kind = case.random.choice(list(KINDS))
    truth, found = KINDS[kind]
    case.copy(truth, found, "drop-results.txt")
    _spoil(case, case.random.choice((truth, found)))
    words = ("evaluate-results", "--kind", kind, "--annotations", truth, "--results", found)
    done = case.run(*words, "--json")
    if done.code == 0:
        said = json.loads(done.out)["original"]
        values = [*said["metrics"].values(), *said["classes"].values()]
        case.expect(all(value is None or 0 <= value <= 1 for value in values), f"a share of {values}")
    case.run(*words, "--drop", "drop-results.txt")


def annotations(case: Case) -> None:
    """What cannot be packed is in the quarantine, and the pictures are packed; or all of it is refused."""
    name = case.random.choice(("coco.json", "xml", "maps"))
    case.copy("pictures", name)
    _spoil(case, name)
    done = case.run("data", "ingest", "pictures", "new", "--annotations", name, "--workers", "1")
    if done.code == 0:
        case.run("data", "info", "new", "--json")
        case.run("data", "verify", "new")
    else:
        case.expect(done.code in (1, 2), f"exit code {done.code}")


def detections(case: Case) -> None:
    """The evaluation of a detector, as audits and reports read it."""
    case.copy("detector")
    evaluation = "detector/evaluations/validation-00000002"
    files = ("found.json", "truth.json", "metrics.json", "samples.npz")
    name = case.random.choice([f"{evaluation}/{file}" for file in files] + ["detector/pairs/validation.tsv"])
    if Path(name).suffix == ".npz":
        case.spoil(name, mutate.data)
    else:
        case.spoil(name, mutate.document if name.endswith(".json") else mutate.text, binary=False)
    case.run("dedup", "audit", "detector", "--pairs", "detector/pairs/validation.tsv", "--json")
    case.run("report", "detector")
