"""Ten times kill -9 at random moments, of the ingest or of one of its workers: the same bytes as without."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import PHOTOGRAPHS
from test_ingest import children, content, make_source

SAMPLE = PHOTOGRAPHS / "imagenet-sample"


def command(source: Path, out: Path) -> list[str]:
    code = "from hpcscale.cli import main; main()"
    options = ["--resize", "340", "--shard-samples", "20", "--workers", "2"]
    return [sys.executable, "-c", code, "data", "ingest", str(source), str(out), *options]


@pytest.mark.chaos
def test_ten_kills_leave_the_same_bytes(tmp_path: Path) -> None:
    source = SAMPLE if SAMPLE.exists() else make_source(tmp_path / "source", records=1500)
    begin = time.monotonic()
    subprocess.run(command(source, tmp_path / "expected"), check=True)
    duration = time.monotonic() - begin
    kills = {"ingest": 0, "worker": 0}
    seed = random.randrange(1 << 30)
    print(f"seed {seed}, uninterrupted {duration:.1f} s")
    moments = random.Random(seed)
    for attempt in range(10):
        victim = ("ingest", "worker")[attempt % 2]
        process = subprocess.Popen(command(source, tmp_path / "out"), stderr=subprocess.PIPE)
        time.sleep(moments.uniform(0.1, 0.1 + duration / 5))
        workers = children(process.pid)
        if victim == "worker" and workers:
            os.kill(moments.choice(workers), signal.SIGKILL)
            _, errors = process.communicate(timeout=120)
            assert process.returncode in (0, 75), errors  # 0: nothing was left for this worker
            assert process.returncode == 0 or b"SIGKILL" in errors
        else:
            victim = "ingest"
            process.kill()
            process.communicate(timeout=120)
        kills[victim] += process.returncode in (75, -signal.SIGKILL)
    print(kills)
    subprocess.run(command(source, tmp_path / "out"), check=True)
    assert content(tmp_path / "out") == content(tmp_path / "expected")
    assert sum(kills.values()) >= 5
