"""`python -m benchmarks [NAME...] [--record FILE]`: run benchmarks/NAME.py (all by default) and print tables.

A benchmark is a module here with `run() -> str`, which returns Markdown made by harness.table. If it needs a
package that is missing, it is left out with a message.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAMES = ["targets", "loader", "step", "end_to_end", "split", "hashes", "dedup", "shuffle", "probe", "trials"]
NAMES += ["results", "dense_ops", "detector", "forecast"]
PACKAGES = ["numpy", "torch", "scipy", "scikit-learn", "nvidia-dali-cuda130", "simplejpeg", "horovod"]
PACKAGES += ["cyanure", "faiss-cpu", "pdqhash", "imagehash", "hotcoco", "pycocotools", "torchvision"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--record", type=Path, help="write the tables to this file too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    parts = [machine()]
    print(parts[0], flush=True)
    for name in options.names or NAMES:
        try:
            part = importlib.import_module(f"benchmarks.{name}").run()
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        parts.append(part)
        print(part, flush=True)
    if options.record:
        options.record.write_text("\n".join(parts))
    return 0


def machine(module: str = "benchmarks") -> str:
    """A header: machine, time, versions and command of the figures."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    names = [line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    lines = [
        f"# Benchmarks at {commit}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"- command: python -m {module} {' '.join(sys.argv[1:])}",
        f"- machine: {cpu}, {os.cpu_count()} cores, load before the run {os.getloadavg()[0]:.2f}",
        f"- Python {platform.python_version()}, " + ", ".join(filter(None, map(_version, PACKAGES))),
        "- medians of interleaved repeats; a CPU second is one of any thread of the process",
    ]
    return "\n".join(lines) + "\n"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
