"""Reports: run folders in; Markdown and figures out. Reads files only, and imports nothing of hpcscale but
config, evaluations, leaks and text.

Where `RUN/pairs/<set>.tsv` names near-duplicates of a set (`dedup search`), its results stand beside those
without them; decisions of reviewers are taken from `RUN/pairs/<set>.jsonl`.

A run that is going on, was killed or was never evaluated gets a report too, which says what is missing.
"""

from collections.abc import Sequence
from pathlib import Path

from hpcscale.report import figures, tables
from hpcscale.report.folder import Run, read


def report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write `RUN/report.md` and its figures for every run; for several also their comparison. Returns the
    last file.

    out: the file of the comparison, by default `comparison.md` in the folder that holds the first run; its
    figure goes beside it. Older reports are replaced. Raises FileNotFoundError where a run is not a folder,
    before anything is written.
    """
    found = [read(run) for run in runs]
    for run in found:
        file = _report_of(run)
    if len(found) > 1:
        file = out or found[0].folder.parent / "comparison.md"
        figure = file.with_name(f"{file.stem}-curves.png")
        curves = figure.name if figures.curves(found, figure) else None
        _write(file, tables.comparison(found, curves))
    return file


def summary(runs: Sequence[Path]) -> str:
    """The newest metrics of one run, or of several side by side, and what is missing, as Markdown tables."""
    found = [read(run) for run in runs]
    return tables.summary(found[0]) if len(found) == 1 else tables.comparison(found, None)


def _report_of(run: Run) -> Path:
    curves = "report-curves.png" if figures.curves([run], run.folder / "report-curves.png") else None
    pictures = {}
    for evaluation in run.evaluations:
        name = f"report-pictures-{evaluation.set}.png"
        if figures.pictures(evaluation, run.folder / name):
            pictures[evaluation.set] = name
    file = run.folder / "report.md"
    _write(file, tables.run_report(run, curves, pictures))
    return file


def _write(file: Path, text: str) -> None:
    aside = file.with_name(f".{file.name}.part")
    aside.write_text(text, "utf-8")
    aside.rename(file)
