"""Reports: run folders in; Markdown and figures out. Reads files only, and imports nothing of hpcscale but
config, evaluations, leaks and text.

If `RUN/pairs/<set>.tsv` lists near-duplicates of a set (from `dedup search`), the report shows the results of
the set with and without them, unless `<set>.tsv.json` says that they are of other pictures. Decisions of
reviewers are read from `RUN/pairs/<set>.jsonl`.

Folders of `hpcscale transfer` get tables of their own (transfers.py), and searches a curve (saturation.py).
So do runs of a dense task (dense.py).

A run that is still training, was killed or was never evaluated gets a report too, which says what is missing.
"""

from collections.abc import Sequence
from pathlib import Path

from hpcscale.files import PNG, check_output, marked, write_file
from hpcscale.report import dense, figures, tables, transfers
from hpcscale.report.runs import Run, read

CURVES, PICTURES = "report-curves.png", "report-pictures-{}.png"


def report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write `RUN/report.md` and its figures for every run; for several runs also a comparison. Returns the
    last file.

    out: the file of the comparison, by default `comparison.md` beside the first run's folder; its figure goes
    beside it. Older reports are replaced. Before anything is written, raises FileNotFoundError if a run is
    not a folder, and OutputError if a file that is not a report has the name of one.
    """
    if any(map(transfers.is_transfer, runs)):
        return transfers.report(runs, out)
    if all(map(dense.is_dense, runs)):
        return dense.report(runs, out)
    found = [read(run) for run in runs]
    for run in found:
        check_output(run.folder / "report.md", ours=_ours)
        for name in (CURVES, *(PICTURES.format(evaluation.set) for evaluation in run.evaluations)):
            check_output(run.folder / name, ours=marked(PNG))
    if len(found) > 1:
        file = out or found[0].folder.parent / "comparison.md"
        figure = file.with_name(f"{file.stem}-curves.png")
        check_output(file, ours=_ours)
        check_output(figure, ours=marked(PNG))
    for run in found:
        written = _report_of(run)
    if len(found) > 1:
        curves = figure.name if figures.curves(found, figure) else None
        _write(file, tables.comparison(found, curves))
        written = file
    return written


def summary(runs: Sequence[Path]) -> str:
    """The newest metrics of one run, or of several side by side, and what is missing, as Markdown tables; or
    the tables of transfers."""
    if any(map(transfers.is_transfer, runs)):
        return transfers.overview(runs)
    if all(map(dense.is_dense, runs)):
        return dense.summary(runs)
    found = [read(run) for run in runs]
    return tables.summary(found[0]) if len(found) == 1 else tables.comparison(found, None)


def _report_of(run: Run) -> Path:
    curves = CURVES if figures.curves([run], run.folder / CURVES) else None
    pictures = {}
    for evaluation in run.evaluations:
        name = PICTURES.format(evaluation.set)
        if figures.pictures(evaluation, run.folder / name):
            pictures[evaluation.set] = name
    file = run.folder / "report.md"
    _write(file, tables.run_report(run, curves, pictures))
    return file


def _ours(file: Path) -> bool:
    return marked(tables.COMPLETE.encode())(file) or marked(tables.INCOMPLETE.encode())(file)


def _write(file: Path, text: str) -> None:
    write_file(file, text.encode("utf-8"))
