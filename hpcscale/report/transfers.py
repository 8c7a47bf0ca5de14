"""Tables over transfers: folders with `transfer.json` in, Markdown out.

A row for each pretraining, a column for each target (Kolesnikov et al. 2020, table 1): the metric on all test
pictures / on those without a near-duplicate in the pretraining data / number of near-duplicates. Where a
transfer was trained with several seeds, the numbers are means, with the standard deviation of a seed behind.
Of searches, how much more trials bring (saturation.py): a curve for each pretraining, over its targets.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpcscale.files import PNG, FileError, check_output, marked, read_json, write_file
from hpcscale.report import saturation
from hpcscale.report.tables import METRICS, listing, table
from hpcscale.text import markdown

FILE, FORMAT = "transfer.json", "hpcscale transfer"
TITLE = "# What pretraining brought to other tasks"
LR, SEARCH = "schedule.lr", "search"
MEANING = """\
Each cell: on all test pictures / without those that have a near-duplicate among the pretraining pictures /
number of near-duplicates. –: not audited; the reason stands below. ±: standard deviation over seeds of the
last training."""
SATURATION = """\
The best score on what was held out after so many random trials: mean over random orderings of the trials, ±
its standard error. Of several targets: the mean of theirs."""

Said = Mapping[str, Any]  # what a transfer.json says


def is_transfer(folder: Path) -> bool:
    return (folder / FILE).is_file()


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the tables of one transfer to `report.md` in its folder, those of several to `out`, by default
    `transfers.md` beside the first; beside it, if there are searches, their figure, `report-curve.png` or
    `transfers-curve.png`. Raises FileError, also where a folder is no transfer, and OutputError."""
    if others := [folder for folder in folders if not is_transfer(folder)]:
        raise FileError(f"{others[0]}: no {FILE}; transfers are not compared with runs")
    first = folders[0]
    file = out or (first / "report.md" if len(folders) == 1 else first.parent / "transfers.md")
    check_output(file, ours=marked(TITLE.encode()))
    found = [*map(read, folders)]
    parts = [TITLE, summary(found)]
    if curves := _curves(folders, found):
        figure = file.with_name(f"{file.stem}-curve.png")
        check_output(figure, ours=marked(PNG))
        saturation.draw(curves, dict.fromkeys(METRICS[said["metric"]] for said in found), figure)
        parts += [searched(curves), f"![Best score by number of trials]({quote(figure.name)})"]
    write_file(file, ("\n\n".join(parts) + "\n").encode())
    return file


def overview(folders: Sequence[Path]) -> str:
    """The tables of a report. Raises FileError and OSError."""
    found = [*map(read, folders)]
    curves = _curves(folders, found)
    return "\n\n".join([summary(found), *([searched(curves)] if curves else [])])


def searched(curves: Mapping[str, saturation.Curve]) -> str:
    """A table of named curves of searches, and what it says."""
    escaped = {markdown(name): curve for name, curve in curves.items()}
    return f"{SATURATION}\n\n{saturation.text(escaped)}"


def _curves(folders: Sequence[Path], transfers: Sequence[Said]) -> dict[str, saturation.Curve]:
    """By name, the mean over targets of each pretraining's searches."""
    found: dict[str, dict[str, saturation.Curve]] = {}
    for folder, said in zip(folders, transfers, strict=True):
        if said.get("method") == SEARCH:
            found.setdefault(str(said["source"]), {})[str(said["target"])] = saturation.read(folder)
    return {
        f"{source}, {next(iter(curves)) if len(curves) == 1 else f'{len(curves)} targets'}": saturation.mean(
            [*curves.values()]
        )
        for source, curves in found.items()
    }


def read(folder: Path) -> Said:
    """Raises FileError and OSError."""
    file = folder / FILE
    said = read_json(file)
    try:
        if said["format"] != FORMAT or not said["results"]:
            raise ValueError
        for result in said["results"]:
            METRICS[said["metric"]], result["metrics"][said["metric"]]
            if result["audit"] is not None:
                result["audit"]["dedup"][said["metric"]], int(result["audit"]["duplicates"])
            if "probe" in result:
                _probe(result["probe"])
        str(said["source"]), str(said["target"]), said["keys"].get(LR)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise FileError(f"{file}: not what `hpcscale transfer` writes") from None
    return dict(said)


def summary(transfers: Sequence[Said]) -> str:
    """Tables of the metric and of the chosen learning rates, and what was not audited."""
    targets = list(dict.fromkeys(said["target"] for said in transfers))
    rows: dict[tuple[str, str], dict[str, Said]] = {}
    for said in transfers:
        rows.setdefault((said["source"], said["method"]), {})[said["target"]] = said
    metrics = dict.fromkeys(METRICS[said["metric"]] for said in transfers)
    head = [" · ".join(metrics), *map(markdown, targets)]
    cells = [[_name(*key), *(_cell(row.get(target)) for target in targets)] for key, row in rows.items()]
    parts = [table(head, cells), MEANING]
    rates = {key: [_rate(row.get(target)) for target in targets] for key, row in rows.items()}
    if any(rate is not None for row in rates.values() for rate in row):
        parts += [
            "Learning rates that were chosen, in brackets as multiples of the first row's:",
            table(["learning rate", *map(markdown, targets)], _scaled(rates)),
        ]
    results = [(said, one) for said in transfers for one in said["results"]]
    if probes := [(_seed(said, one), _probe(one["probe"])) for said, one in results if "probe" in one]:
        parts += ["Linear probes:", listing(probes)]
    if reasons := [
        (_seed(said, one), markdown(one["unaudited"])) for said, one in results if one.get("unaudited")
    ]:
        parts += ["Not audited:", listing(reasons)]
    return "\n\n".join(parts)


def _seed(said: Said, one: Said) -> str:
    return f"{markdown(said['source'])}, {markdown(said['target'])}, seed {one['seed']}"


def _probe(said: Said) -> str:
    """How near the optimum a probe is, and what neighbours find."""
    text = f"l2 {said['l2']:g}, objective {said['objective']:.6g}, gap at most {said['gap']:.2g}"
    text += "" if said["converged"] else " (not converged)"
    if knn := said.get("knn"):
        text += f"; accuracy of {int(knn['k'])} nearest training pictures {knn['top1']:.4f}"
    return text


def _name(source: str, method: str) -> str:
    return markdown(f"{source}, {method}")


def _cell(said: Said | None) -> str | None:
    if said is None:
        return None
    metric, results = said["metric"], said["results"]
    audits = [one["audit"] for one in results if one["audit"] is not None]
    dedup = _mean(audit["dedup"][metric] for audit in audits) if len(audits) == len(results) else "–"
    count = str(audits[0]["duplicates"]) if audits else "–"
    return f"{_mean(one['metrics'][metric] for one in results)} / {dedup} / {count}"


def _mean(values: Iterable[float | None]) -> str:
    found = list(values)
    if any(value is None for value in found):
        return "–"
    spread = f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else ""  # type: ignore[type-var]
    return f"{statistics.fmean(found):.4f}{spread}"  # type: ignore[arg-type]


def _rate(said: Said | None) -> float | None:
    rate = said["keys"].get(LR) if said else None
    return rate if isinstance(rate, int | float) else None


def _scaled(rates: Mapping[tuple[str, str], list[float | None]]) -> list[list[str | None]]:
    first = next(iter(rates.values()))
    return [
        [
            _name(*key),
            *(
                None if rate is None else f"{rate:g}" + (f" ({rate / base:.2g})" if base else "")
                for rate, base in zip(row, first, strict=True)
            ),
        ]
        for key, row in rates.items()
    ]
