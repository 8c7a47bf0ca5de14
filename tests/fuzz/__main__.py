"""`make fuzz`: all families, in two processes; a table of counts by family, exit code 1 for anything bad.

ARGS="--seed S --cases N" for other cases or more of them, "--case FAMILY:N" for one again.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from tests.fuzz import harness, pool, world
from tests.fuzz.families import FAMILIES
from tests.fuzz.harness import BAD

CASES = 2400
COLUMNS = ("cases", "refused", "accepted", *BAD)


def chosen(cases: int) -> list[tuple[str, int]]:
    """So many cases, shared out by the weights of the families; at least one of each."""
    whole = sum(weight for _, weight in FAMILIES.values())
    return [
        (name, number)
        for name, (_, weight) in FAMILIES.items()
        for number in range(max(1, round(cases * weight / whole)))
    ]


def fuzz(
    cases: Sequence[tuple[str, int]], seed: int, processes: int
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts by family and column, and a line for every case that is bad."""
    counts = {name: Counter[str]() for name in FAMILIES}
    bad = []
    with tempfile.TemporaryDirectory(prefix="hpcscale-fuzz-") as name:
        place = Path(name)
        pool.in_child(lambda: world.make(place / "world"))
        for (family, number), found in pool.results(place, cases, seed, processes):
            counts[family]["cases"] += 1
            counts[family][found["kind"]] += 1
            if found["kind"] in BAD:
                bad.append(f"{family}:{number} {found['found']}\n    {found['command']}\n    {found['note']}")
                print(bad[-1], file=sys.stderr, flush=True)
    return counts, bad


def table(counts: dict[str, Counter[str]]) -> str:
    total = Counter[str]()
    for row in counts.values():
        total += row
    rows = [("family", *COLUMNS)]
    rows += [
        (name, *(str(row[column]) for column in COLUMNS)) for name, row in (*counts.items(), ("all", total))
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *numbers]))
    return "\n".join(lines)


def again(case: str, seed: int) -> int:
    """One case, with what was found."""
    family, _, number = case.partition(":")
    place = Path(tempfile.mkdtemp(prefix="hpcscale-fuzz-"))
    pool.in_child(lambda: world.make(place / "world"))
    harness.prepare()
    try:
        found = harness.attempt(
            FAMILIES[family][0], place / "world", place / "case", pool.chance(seed, family, int(number))
        )
    except BaseException:
        traceback.print_exc()
        return 1
    print("\n".join(f"{key}: {value}" for key, value in found.items()))
    return int(found["kind"] in BAD)


def main(words: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--case", metavar="FAMILY:N")
    options = parser.parse_args(None if words is None else list(words))
    if options.case:
        return again(options.case, options.seed)
    begin = time.monotonic()
    cases = [case for case in chosen(options.cases) if not options.family or case[0] in options.family]
    Random(options.seed).shuffle(cases)  # so that both processes have work of every kind
    counts, bad = fuzz(cases, options.seed, options.processes)
    print(table({name: row for name, row in counts.items() if row}))
    print(f"seed {options.seed}, {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
