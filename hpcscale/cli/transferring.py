"""What the commands of `hpcscale transfer` share that train or look at pictures."""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import start_ranks, stop


def run(method: str, options: dict[str, Any]) -> None:
    """Parse, start ranks, call the method, and print what it says.

    options: source, file, overrides, out, count, as_json, and perhaps part, as they were typed.
    """
    from hpcscale.transfer import settings
    from hpcscale.transfer.source import find

    file, overrides, part = options["file"], options["overrides"], options.get("part")
    source = find(options["source"])
    plan = settings.load(file, overrides, source, method)
    out = options["out"] or Path("transfers") / f"{file.stem}-{method}-{source.name}"
    settings.check_out(plan, out)
    words: list[str | Path] = [word for override in overrides for word in ("--set", override)]
    words += [
        "--out",
        out,
        *(["--json"] * options["as_json"]),
        *([f"--part={part[0]}/{part[1]}"] if part else []),
    ]
    start_ranks(options["count"], "transfer", method, options["source"], "--config", file, *words)

    from hpcscale import ranks
    from hpcscale.cli.outcome import of_a_rank
    from hpcscale.report.transfers import summary
    from hpcscale.train import process
    from hpcscale.transfer.bit import hyperrule
    from hpcscale.transfer.finetune import finetune
    from hpcscale.transfer.linear import probe
    from hpcscale.transfer.search import search

    methods = {"finetune": finetune, "hyperrule": hyperrule, "probe": probe, "search": search}
    with of_a_rank():
        process.keep_memory()
        ranks.init(out, plan.backend)
        said = methods[method](plan, out, part)
    if ranks.rank() == 0 and said is not None:
        text = json.dumps(said, indent=2, default=str)
        click.echo(text if options["as_json"] else f"{summary([said])}\n\n{out}")
        for one in said["results"]:
            if "probe" in one and not one["probe"]["converged"]:
                norm, wanted = one["probe"]["gradient_norm"], plan.own.probe.tolerance
                stop(f"not converged: the gradient's norm is {norm:.3g}, wanted {wanted:g}; see the gap", 1)
