"""The search among codes of pictures, beside the peers.

`python -m benchmarks dedup` takes minutes. `python -m benchmarks.dedup --millions 3 10` measures larger sets.

What is searched: benchmarks/codes.py.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import faiss
import numpy as np

from benchmarks.codes import biased, lifelike, photographs, uniform
from benchmarks.harness import interleave, table
from hpcscale import ops

RADIUS = 31


def run() -> str:
    faiss.omp_set_num_threads(1)
    jpegs = photographs()
    return "\n".join([scan(1), joins(jpegs, 1), threads()])


def as_bytes(codes: np.ndarray) -> np.ndarray:
    return codes.view(np.uint8).reshape(len(codes), 32)


def scan(millions: float) -> str:
    random = np.random.default_rng(0)
    codes = uniform(random, round(millions * 1e6))
    queries = codes[:2048].copy()
    queries[:, 0] ^= np.uint64(255)
    flat = faiss.IndexBinaryFlat(256)
    flat.add(as_bytes(codes))
    few = 64
    # A distance is the item, so that peers may run on fewer queries. faiss's radius is exclusive.
    expected = len(flat.range_search(as_bytes(queries[:few]), RADIUS + 1)[1])
    assert len(ops.search(queries[:few], codes, RADIUS, chunks=0)) == expected
    functions: dict[str, Callable[[], object]] = {
        "hpcscale": lambda: ops.search(queries, codes, RADIUS, chunks=0),
    }
    ours = interleave(functions, len(queries) * len(codes), repeats=5)
    slower = {
        f"hpcscale, {variant}": lambda variant=variant: ops.search(
            queries[:few], codes, RADIUS, chunks=0, variant=variant
        )
        for variant in ops.hamming_variants()[:-1]
    }
    peers = interleave(
        {
            **slower,
            "faiss IndexBinaryFlat range_search": lambda: flat.range_search(
                as_bytes(queries[:few]), RADIUS + 1
            ),
            "NumPy bitwise_count": lambda: np.bitwise_count(codes[:100_000] ^ queries[0]).sum(axis=1),
        },
        few * len(codes),
        repeats=5,
    )
    peers[-1] = peers[-1]._replace(
        per_second=peers[-1].per_second * 1e5 / (few * len(codes)),
        per_core=peers[-1].per_core * 1e5 / (few * len(codes)),
    )
    ratio = ours[0].per_core / next(r.per_core for r in peers if r.name.startswith("faiss"))
    notes = [
        f"2,048 queries, {millions:g} million codes; peers and slower variants {few} queries, "
        "too few to make up for bringing the codes into columns",
        f"wanted 5 x faiss IndexBinaryFlat at equal results: {ratio:.1f} x",
    ]
    return table(f"Scan, 256 bits, radius {RADIUS}, one thread", "distances", ours + peers, notes)


def joins(jpegs: list[bytes], millions: float, repeats: int = 3) -> str:
    random = np.random.default_rng(0)
    count = round(millions * 1e6)
    parts = []
    kinds = {"uniform": uniform, "real-like": partial(lifelike, jpegs=jpegs)}
    if millions <= 1:
        kinds["biased, 0.3 % equal"] = biased
    for kind, draw in kinds.items():
        codes = draw(random, count)
        codes[-1000:] = codes[:1000]  # duplicates
        plan = ops.plan(codes, None, RADIUS)
        seconds = []
        for _ in range(repeats):
            start = time.process_time()
            pairs = ops.self_join(codes, RADIUS)
            seconds.append(time.process_time() - start)
        ours = float(np.median(seconds))
        # Peers by some queries, times the number of codes; half of it, as a self-join needs half.
        few = 200
        start = time.process_time()
        ops.search(codes[: 10 * few], codes, RADIUS, chunks=0)
        brute = (time.process_time() - start) / (10 * few) * count / 2
        multi = "not run"
        if millions <= 3:  # 2.7 GB and minutes to build beyond
            index = faiss.IndexBinaryMultiHash(256, 16, 16)
            index.nflip = 1
            start = time.process_time()
            index.add(as_bytes(codes))
            build = time.process_time() - start
            start = time.process_time()
            index.range_search(as_bytes(codes[:few]), RADIUS + 1)
            multi = f"{(time.process_time() - start) / few * count / 2 + build:,.0f}"
        cells = [kind, f"{millions:g}", str(plan), f"{ours:.2f}", f"{brute:,.0f}", multi, f"{len(pairs):,}"]
        parts.append(f"| {' | '.join(cells)} |")
    head = [
        f"## Self-join, 256 bits, radius {RADIUS}, CPU seconds",
        "",
        "| codes | million | chunks chosen (0: scan) | hpcscale | hpcscale, scan | faiss MultiHash | pairs |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    notes = [
        "",
        "- scan from 2,000 and faiss IndexBinaryMultiHash (16 x 16 bits, 1 flip: exact) from 200 queries, "
        "times codes / 2",
        "- wanted below 2.5 CPU seconds for 1 million uniform codes",
    ]
    return "\n".join([*head, *parts, *notes]) + "\n"


def threads() -> str:
    codes = uniform(np.random.default_rng(0), 1_000_000)
    calls: dict[str, Callable[[int], object]] = {
        "self-join of 1 million": lambda n: ops.self_join(codes, RADIUS, n),
        "scan, 4,096 x 1 million": lambda n: ops.search(codes[:4096], codes, RADIUS, n, chunks=0),
    }
    head = "| | 1 thread, s | 2 threads, s | efficiency by wall time | CPU time, 1 / 2 threads |"
    rows = []
    for name, call in calls.items():
        one, two = interleave({"1": partial(call, 1), "2": partial(call, 2)}, 1, repeats=5, seconds=0.1)
        cells = [
            f"{1 / one.per_second:.2f}",
            f"{1 / two.per_second:.2f}",
            f"{two.per_second / (2 * one.per_second):.2f}",
            f"{two.per_core / one.per_core:.2f}",
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    note = "- wanted 0.9; wall times need two idle cores, the CPU time does not"
    return "\n".join(["## Two threads", "", head, "|---|---:|---:|---:|---:|", *rows, "", note]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup")
    parser.add_argument("--millions", type=float, nargs="+", default=[3, 10], help="codes of the larger sets")
    faiss.omp_set_num_threads(1)
    jpegs = photographs()
    for millions in parser.parse_args().millions:
        print(scan(millions), joins(jpegs, millions, repeats=1), sep="\n", flush=True)


if __name__ == "__main__":
    main()
