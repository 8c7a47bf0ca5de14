"""A network starts from other weights: its head replaced, parts of it frozen.

In: `[model] init`, `head` and `freeze` of a recipe. Out: the network with these weights on all ranks, and a
report of what was taken, left and missing. A run that goes on reads none of it again: its own checkpoint has
all weights.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpcscale import config, ranks
from hpcscale.config import ConfigError
from hpcscale.files import FileError, Told
from hpcscale.models import checkpoint, weights
from hpcscale.models.weights import Weights, WeightsError

HEAD = ("fc.weight", "fc.bias")
COUNTER = "num_batches_tracked"  # of a batch normalisation; old files lack it, and nothing here reads it
# Of what is stated about preprocessing: what must agree, and what may differ and is told.
SAME, TOLD = ("channels", "mean", "std", "stride"), ("size", "crop", "method")
SHOWN = 5  # names in a message


def begin(
    model: nn.Module, settings: config.Model, run: Path, mine: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Put the weights of `init` into the network of a run that begins; of one that goes on, only see that
    they are those it began with (collective).

    mine: what the run's checkpoints will state. Returns the report, the same on all ranks, which JSON can
    carry; None without `init`. Raises ConfigError, CheckpointError and WeightsError on all ranks.
    """
    if settings.head == "zero":
        nn.init.zeros_(model.get_parameter(HEAD[0]))
    if settings.init is None:
        return None
    answer: dict[str, Any] = {}
    if ranks.rank() == 0:
        try:
            before = checkpoint.stated(run)
            if before is None:
                answer = put(model, settings, weights.read(settings.init), mine)
            else:
                answer = _held_to(settings.init, before)
        except Told as error:
            answer = {"error": str(error), "code": error.code}
    answer = ranks.broadcast_object(answer)
    if "error" in answer:
        kind = ConfigError if answer["code"] == ConfigError.code else WeightsError
        raise kind(answer["error"])
    ranks.broadcast(model.state_dict().values())
    return answer


def _held_to(place: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that goes on says of its first weights. A file must not have changed, if it is still there;
    a run folder may have newer checkpoints by now."""
    began = before.get("init")
    if place.is_file() and began is not None:
        try:
            found = weights.digest(place)
        except (OSError, FileError) as error:
            raise WeightsError(f"{place}: cannot be read: {error}") from None
        if found != began:
            raise ConfigError(
                f"model.init: {place} is not the file that the run began with: its SHA-256 is {found}, that "
                f"one's {began}"
            )
    return {"file": str(place), "sha256": began}


def put(model: nn.Module, settings: config.Model, given: Weights, mine: Mapping[str, Any]) -> dict[str, Any]:
    """Copy weights into the tensors of the same names, in place, and report. `head` says what becomes of the
    classifier; the shapes of all others must agree, and no name must."""
    own, tensors = model.state_dict(), given.tensors
    kept = settings.head == "keep"
    wanted = {name for name in own if kept or name not in HEAD}
    taken = wanted & tensors.keys()
    _refuse_shapes(given, {name: own[name] for name in sorted(taken)}, settings)
    if not taken & dict(model.named_parameters()).keys():
        raise WeightsError(
            f"{given.file}: nothing in it fits {settings.name}: it holds {_some(sorted(tensors))}, not "
            f"{_some(list(own))}"
        )
    if kept and not taken.issuperset(HEAD):
        raise WeightsError(f"{given.file}: model.head is 'keep', but it holds no {' and '.join(HEAD)}")
    notes = _compare(given, mine, kept)
    with torch.no_grad():
        for name in sorted(taken):
            if not torch.isfinite(tensors[name]).all():
                raise WeightsError(f"{given.file}: {name} is not finite")
        for name in taken:
            own[name].copy_(tensors[name])
    missing = [name for name in own if name in wanted - taken and not name.endswith(COUNTER)]
    left = sorted(tensors.keys() - taken)
    return {
        "file": str(given.file), "sha256": given.sha256, "head": settings.head, "taken": len(taken),
        "left": left, "missing": missing, "notes": notes,
    }  # fmt: skip


def _refuse_shapes(given: Weights, own: Mapping[str, torch.Tensor], settings: config.Model) -> None:
    wrong = [name for name, tensor in own.items() if tensor.shape != given.tensors[name].shape]
    if not wrong:
        return
    listed = [
        f"{name} is {tuple(given.tensors[name].shape)} there, {tuple(own[name].shape)} here"
        for name in wrong[:SHOWN]
    ]
    more = f"; {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    advice = "; for other classes, choose model.head = 'new'" if set(wrong) <= set(HEAD) else ""
    raise WeightsError(f"{given.file}: does not fit {settings.name}: {'; '.join(listed)}{more}{advice}")


def _compare(given: Weights, mine: Mapping[str, Any], kept: bool) -> list[str]:
    """Notes on what differs and may, and on what the file does not state. Raises ConfigError where the two
    state what cannot go together."""
    notes, stated = [], given.stated
    there, here = stated.get("preprocessing"), mine["preprocessing"]
    if not isinstance(there, Mapping):
        shown = ", ".join(f"{key} {here[key]}" for key in (*SAME, *TOLD) if here.get(key) is not None)
        notes.append(f"it does not say how its pictures were prepared; here: {shown}")
        there = {}
    differing = [key for key in (*SAME, *TOLD) if None not in (there.get(key), here.get(key))
                 and there[key] != here[key]]  # fmt: skip
    for key in differing:
        if key in SAME:
            raise ConfigError(
                f"model.init: {given.file} was trained with {key} {there[key]}, the recipe says {here[key]}; "
                "change the recipe"
            )
        notes.append(f"it was trained with {key} {there[key]}, here {here[key]}")
    if kept:
        keys = [key for key in ("names", "classes") if isinstance(stated.get(key), str)]
        if not keys:
            notes.append("it does not say its classes; they must be those of the vocabulary, in its order")
        elif stated[keys[0]] != mine[keys[0]]:
            raise ConfigError(
                f"model.init: {given.file} has other classes than this run, or another order of them; choose "
                "model.head = 'new'"
            )
    return notes


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report of a run that begins, for a terminal."""
    if "taken" not in report:
        return []
    head = {"new": "fresh", "keep": "kept", "zero": "zero"}[report["head"]]
    text = [f"{report['file']}: {report['taken']} tensors taken; classifier {head}"]
    text += [f"{key}: {_some(report[key])}" for key in ("left", "missing") if report[key]]
    return [f"model.init: {line}" for line in (*text, *report["notes"])]


def freeze(model: nn.Module, settings: config.Model) -> None:
    """Do not train the parameters whose names are one of `freeze` or begin with one and a point; modules
    below them evaluate, so that batch normalisations keep their averages. Raises ConfigError."""
    parameters, prefixes = dict(model.named_parameters()), settings.freeze
    for prefix in prefixes:
        if not any(_below(name, (prefix,)) for name in parameters):
            parts = [name.split(".") for name in parameters]
            places = {".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)}
            tops = list(dict.fromkeys(part[0] for part in parts))
            near = get_close_matches(prefix, sorted(places), 3) or tops
            raise ConfigError(
                f"model.freeze: no parameter is {prefix!r} or below it; near: {', '.join(near)}"
            )
    for name, parameter in parameters.items():
        if _below(name, prefixes):
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if _below(name, prefixes):
            module.eval()
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    if not trained:
        raise ConfigError(f"model.freeze: {list(prefixes)} leaves nothing to train")
    if settings.slices == "ranks" and trained <= set(HEAD):
        raise ConfigError(
            f"model.freeze: {list(prefixes)} leaves only the classifier to train, and model.slices = 'ranks' "
            "divides it, so that no gradient is of all ranks; choose model.slices = 'none'"
        )


def _below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
