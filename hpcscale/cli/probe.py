"""hpcscale transfer probe: parse, read features, call hpcscale.transfer, print what was found."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hpcscale.cli.terminal import ANY, AS_JSON, FILE, RANKS, SETTINGS, Number, progress_bar, stop
from hpcscale.cli.transferring import run

if TYPE_CHECKING:
    from hpcscale.transfer.arrays import Arrays
    from hpcscale.transfer.probe import Fit

POSITIVE = Number(0, min_open=True)


@click.command()
@click.argument("source", required=False)
@click.option("--config", "file", type=ANY, help="Of SOURCE: the target, TOML, with [probe].")
@SETTINGS
@RANKS
@click.option("--features", type=FILE, metavar="F.npz",
              help="Training data: arrays x float (n, d) and y int (n,).")  # fmt: skip
@click.option("--test", type=FILE, metavar="T.npz", help="Test data, as --features.  [the training data]")
@click.option("--l2", "l2s", type=POSITIVE, multiple=True, metavar="LAMBDA",
              help="Strength of the regularisation; several: the best on the held-out part.")  # fmt: skip
@click.option("--held-out", "share", type=Number(0, 1, min_open=True, max_open=True), default=0.1,
              show_default=True, metavar="SHARE", help="Of each class, if --l2 is repeated.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, metavar="S",
              help="Of the held-out part, and of SGD's order.")  # fmt: skip
@click.option("--solver", type=click.Choice(["lbfgs", "sgd"]), default="lbfgs", show_default=True)
@click.option("--tolerance", type=POSITIVE, default=1e-8, show_default=True, metavar="NORM",
              help="The gradient's norm at which it ends; SGD also ends at a gap of 1e-4.")  # fmt: skip
@click.option("--knn", type=click.IntRange(1), metavar="K", help="The accuracy of K nearest neighbours too.")
@click.option("--weighting", type=click.Choice(["equal", "cosine"]), default="equal", show_default=True,
              help="Votes of neighbours: one each, or exp(cosine / 0.07).")  # fmt: skip
@click.option(
    "--out", type=ANY, metavar="PATH",
    help="Of SOURCE: folder of the result; else weights, bias, classes: F.safetensors or F.npz.",
)  # fmt: skip
@AS_JSON
def probe(
    source: str | None,
    features: Path | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a linear probe to its global optimum.

    SOURCE with --config: to what a run, a file of weights or a network of random weights (random) sees in a
    target's training set; then it is evaluated on the test set, as `transfer finetune` does. [probe] of the
    file says how: l2, solver, tolerance, knn, weighting. Or --features, with those that it keeps in
    OUT/features, or with features from anywhere.

    The objective is the mean cross-entropy + LAMBDA / 2 ||W||^2; the bias is free. What it is above its
    minimum is at most `gap`. Accuracy is on the test data; without these, on the training data, where a row
    is no neighbour of its own. Of several LAMBDA with one accuracy on the held-out part the largest wins. If
    the wanted tolerance is not reached, the exit code is 1.
    """
    target = {name: options.pop(name) for name in ("file", "overrides", "count")}
    if features is not None:
        _check(source, target["file"], options)
        _of_features(features, out, as_json, **options)
    elif source is None or target["file"] is None:
        raise click.UsageError("name a SOURCE with --config, or --features F.npz")
    else:
        context = click.get_current_context()
        typed = [
            name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        if typed:
            name = {"l2s": "l2", "share": "held-out"}.get(typed[0], typed[0])
            raise click.UsageError(
                f"--{name} goes with --features; [probe] of --config says how SOURCE is probed"
            )
        run("probe", {"source": source, "out": out, "as_json": as_json, **target})


def _check(source: str | None, file: Path | None, options: dict[str, Any]) -> None:
    """Options beside --features."""
    if source is not None:
        raise click.UsageError("SOURCE and --features are two sources of features; name one")
    if file is not None:
        raise click.UsageError("--config goes with a SOURCE")
    if not options["l2s"]:
        raise click.UsageError("--features needs --l2, the strength of the regularisation")


def _of_features(
    features: Path,
    out: Path | None,
    as_json: bool,
    *,
    test: Path | None,
    knn: int | None,
    weighting: Any,
    l2s: tuple[float, ...],
    **way: Any,
) -> None:
    from hpcscale.files import check_output
    from hpcscale.transfer import neighbours
    from hpcscale.transfer.arrays import read_arrays
    from hpcscale.transfer.keep import keep, kept
    from hpcscale.transfer.path import Way, fit_best
    from hpcscale.transfer.probe import accuracy

    if out is not None:
        if out.suffix not in (".npz", ".safetensors"):
            raise click.UsageError(f"--out: {out} must end in .npz or .safetensors")
        check_output(out, [features, test], kept)
    data = read_arrays(features)
    tested = data if test is None else read_arrays(test, data.x.shape[1])
    with progress_bar() as progress:
        start = time.monotonic()
        chosen = fit_best(data.x, data.y, l2s, Way(**way), progress)
        seconds = time.monotonic() - start
        fitted = chosen.probe
        found = _described(fitted) | {"seconds": seconds, "train_accuracy": accuracy(fitted, data.x, data.y)}
        found["accuracy"] = accuracy(fitted, tested.x, tested.y)
        found["unseen"] = int((~_among(tested, fitted)).sum())
        if chosen.tried:
            found["path"] = [
                {"l2": one.l2, "held_out_accuracy": share, "gap": one.gap, "converged": one.converged}
                for one, share in chosen.tried
            ]
        if knn is not None:
            labels = neighbours.predict(
                data.x, data.y, None if test is None else tested.x, knn, weighting, progress
            )
            found["knn_accuracy"] = float((labels == tested.y).mean())
    if out is not None:
        keep(fitted, out)
    click.echo(json.dumps(found, indent=2) if as_json else _lines(found))
    if not (fitted.converged and all(one.converged for one, _ in chosen.tried)):
        norm, wanted = fitted.gradient_norm, way["tolerance"]
        stop(f"not converged: the gradient's norm is {norm:.3g}, wanted {wanted:g}; see the gap", 1)


def _among(data: "Arrays", fitted: "Fit") -> Any:
    import numpy as np

    return np.isin(data.y, fitted.classes)


def _described(fitted: "Fit") -> dict[str, Any]:
    keys = ("l2", "objective", "gradient_norm", "gap", "weight_norm", "evaluations", "converged")
    return {key: getattr(fitted, key) for key in keys} | {"classes": len(fitted.classes)}


def _lines(found: dict[str, Any]) -> str:
    rows = [f"  {key:<16} {value:.10g}" for key, value in found.items() if key != "path"]
    rows += [
        f"  l2 {one['l2']:<13g} {one['held_out_accuracy']:.6f} held out" for one in found.get("path", [])
    ]
    return "\n".join(rows)
