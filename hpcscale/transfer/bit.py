"""`transfer hyperrule`: finetuning by BiT-HyperRule: the size of the task decides, nothing is searched.

In: a Plan. The rule (hyperrule.py) gives what the file leaves open; what the file says, or target.task
switches off, stands, and is told.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hpcscale import config
from hpcscale.data.parts import Part
from hpcscale.data.store import DataSet, open_data
from hpcscale.transfer import result
from hpcscale.transfer.hyperrule import BATCH, rule
from hpcscale.transfer.settings import Plan

T = TypeVar("T")
LOOKED_AT = 1000  # pictures, for their typical size


def hyperrule(plan: Plan, out: Path, part: Part | None = None) -> dict[str, Any] | None:
    """One training for each seed, its evaluation and audit, into the folder `out` (collective). There are no
    trials, so a part does nothing. Returns what `OUT/transfer.json` says, `rule` and `instead` among it."""
    if part:
        return None
    keys, instead = decided(plan)
    return result.last(
        plan, out, keys, {"method": "hyperrule", "rule": plan.own.hyperrule.rule, "instead": instead}
    )


def decided(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the rule decides, as `section.key`; and what the file, or the task, says instead of it. All
    pictures of the training set count, whatever is left out of them; their typical size is the median."""
    recipe = plan.recipe
    data = open_data(Path(recipe["data"]["train"]))
    batch = _of(recipe, "train", "batch", BATCH)
    network = _of(recipe, "model", "name", config.Model().name)
    values = rule(data.samples, typical_size(data), batch, plan.own.hyperrule.rule, network)
    _scale(values, recipe)
    keys = {f"{section}.{key}": value for section, found in values.items() for key, value in found.items()}
    said = _said(recipe, keys)
    whole = {section: {**found, **recipe.get(section, {})} for section, found in values.items()}
    off = {key: value for key, value in plan.off(whole).items() if value != keys[key]}
    instead = {key: value for key, value in (said | off).items() if value != keys[key]}
    return {key: value for key, value in keys.items() if key not in said | off}, instead


def _scale(values: dict[str, Mapping[str, Any]], recipe: Mapping[str, Any]) -> None:
    """Where the recipe has a crop or a number of steps of its own, the other sides, and the steps of the
    schedule, are in proportion to it."""
    view, schedule = values["input"], values["schedule"]
    if crop := _of(recipe, "input", "crop", 0):
        values["input"] = {**view, "resize": round(view["resize"] * crop / view["crop"])}
        values["evaluate"] = {**values["evaluate"], "crop": crop, "resize": crop}
    if steps := _of(recipe, "train", "steps", 0):
        share = steps / values["train"]["steps"]
        at = sorted({max(1, round(step * share)) for step in schedule["at"]})
        values["schedule"] = {**schedule, "at": at, "warmup": round(schedule["warmup"] * share)}


def _of(recipe: Mapping[str, Any], section: str, key: str, usual: T) -> T:
    """What a recipe says, if it is of the right type; else the check of the whole will tell."""
    found = recipe.get(section, {}).get(key)
    return found if type(found) is type(usual) else usual


def _said(recipe: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the keys that the recipe has."""
    split = ((key, *key.split(".")) for key in keys)
    return {key: recipe[section][name] for key, section, name in split if name in recipe.get(section, {})}


def typical_size(data: DataSet) -> tuple[int, int]:
    """Median height and width of the first pictures, as they are stored."""
    samples = np.arange(min(data.samples, LOOKED_AT), dtype=np.int64)
    height, width = np.median(data.sizes(samples), axis=0).astype(int).tolist()
    return height, width
