"""dedup search: equal to brute force whatever the blocks, sorted, resumable, particular about its input."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.cli import main
from hpcscale.data.codes import WORDS, Codes, write_codes
from hpcscale.dedup import blocks, stars
from hpcscale.dedup import search as module
from hpcscale.dedup.groups import drop, groups
from hpcscale.dedup.search import Near, SearchError, search
from hpcscale.pairs import read_pairs


def codes_file(
    file: Path, rows: int, seed: int, method: str = "pdq", originals: int = 6, flips: int = 40
) -> Codes:
    """Codes that are a few originals with some bits flipped, so that many pairs lie around the radius."""
    draw = np.random.default_rng(seed)
    words = WORDS[method]
    base = np.random.default_rng(0).integers(0, 2**64, (originals, words), np.uint64)
    codes = base[draw.integers(0, originals, rows)]
    for row in range(rows):
        for bit in draw.choice(64 * words, draw.integers(0, flips * words // 4 + 1), replace=False).tolist():
            codes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    quality = draw.integers(30, 101, rows).astype(np.uint8)
    found = Codes([f"{file.stem}{row}" for row in range(rows)], codes.reshape(-1, words), quality, method)
    write_codes(file, found)
    return found


def brute(a: Codes, b: Codes | None, radius: int, quality: int) -> str:
    lines = []
    for i in range(len(a.names)):
        for j in range(i + 1 if b is None else 0, len((b or a).names)):
            other = b or a
            distance = int(np.bitwise_count(a.codes[i] ^ other.codes[j]).sum())
            if distance <= radius and min(a.quality[i], other.quality[j]) >= quality:
                lines.append(f"{a.names[i]}\t{other.names[j]}\t{distance}\n")
    return "".join(lines)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    method=st.sampled_from(["pdq", "phash"]),
    block=st.sampled_from([1, 7, 16, 1 << 24]),
    piece=st.sampled_from([1, 5, 1 << 22]),
    radius=st.integers(0, 64),
    quality=st.sampled_from([None, 0, 60]),
    alone=st.booleans(),
)
def test_row_34_equal_to_brute_force(
    tmp_path_factory: pytest.TempPathFactory, sizes, method, block, piece, radius, quality, alone
) -> None:
    folder = tmp_path_factory.mktemp("search")
    a, b = (
        codes_file(folder / f"{name}.h5", rows, rows, method) for name, rows in zip("ab", sizes, strict=True)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(blocks, "PIECE", piece)
        other = None if alone else folder / "b.h5"
        found = search(folder / "a.h5", other, folder / "out.tsv", Near(radius, quality), threads=2)
    assert quality is not None or module.MIN_QUALITY[method] == {"pdq": 50, "phash": 0}[method]
    expected = brute(
        a, None if alone else b, radius, module.MIN_QUALITY[method] if quality is None else quality
    )
    assert (folder / "out.tsv").read_text() == expected
    assert found.pairs == expected.count("\n")
    assert sorted(os.listdir(folder)) == ["a.h5", "b.h5", "out.tsv", "out.tsv.json"]


@pytest.mark.parametrize("option", [[], ["--groups"]])
def test_the_folder_of_the_pairs_is_made(tmp_path: Path, option: list[str]) -> None:
    codes_file(tmp_path / "a.h5", 40, 1)
    out = tmp_path / "new" / "pairs.tsv"
    result = CliRunner().invoke(main, ["dedup", "search", str(tmp_path / "a.h5"), *option, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(out.parent)) == ["pairs.tsv", "pairs.tsv.json"]
    assert out.read_bytes()


def test_stdout_has_the_same_lines_and_low_quality_is_told(tmp_path: Path) -> None:
    a = codes_file(tmp_path / "a.h5", 40, 1)
    result = CliRunner().invoke(main, ["dedup", "search", str(tmp_path / "a.h5")])
    assert result.exit_code == 0, result.output
    assert result.stdout == brute(a, None, 31, 50)
    low = int((a.quality < 50).sum())
    assert f"{low} pictures of too low quality left out" in result.stderr


@pytest.mark.parametrize("piece", [1, 1 << 18])
@pytest.mark.parametrize("radius", [0, 20, 60])
def test_groups_are_those_of_the_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, radius: int, piece: int
) -> None:
    monkeypatch.setattr(stars, "PIECE", piece)
    codes = codes_file(tmp_path / "a.h5", 120, 1, originals=25)
    twice = Codes([f"{i}\n" for i in range(240)], np.concatenate([codes.codes[::-1], codes.codes]),
                  np.concatenate([codes.quality, codes.quality]), "pdq")  # fmt: skip
    write_codes(tmp_path / "b.h5", twice)
    search(tmp_path / "b.h5", None, tmp_path / "pairs.tsv", Near(radius))
    expected = groups(read_pairs(tmp_path / "pairs.tsv"))
    result = CliRunner().invoke(
        main, ["dedup", "search", str(tmp_path / "b.h5"), "--groups", "--radius", str(radius),
               "--out", str(tmp_path / "stars.tsv")])  # fmt: skip
    found = list(read_pairs(tmp_path / "stars.tsv"))
    assert groups(found) == [sorted(group, key=int) for group in expected] != []
    assert len(found) == sum(len(group) - 1 for group in expected)
    assert f"{len(found)} pictures beside the first of a group" in result.stdout
    for pair in found[:20]:
        i, j = (int(name) for name in (pair.a, pair.b))
        assert pair.distance == np.bitwise_count(twice.codes[i] ^ twice.codes[j]).sum()
    for within in ("pairs", "stars"):
        drop(tmp_path / f"{within}.tsv", "within", tmp_path / within)
    assert (tmp_path / "pairs").read_bytes() == (tmp_path / "stars").read_bytes() != b""


def test_many_pairs_are_told_while_they_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    same = Codes(
        [str(i) for i in range(400)], np.zeros((400, 4), np.uint64), np.full(400, 99, np.uint8), "pdq"
    )
    write_codes(tmp_path / "a.h5", same)
    search(tmp_path / "a.h5", None, tmp_path / "few.tsv")
    assert caplog.messages == []  # 79,800 pairs
    monkeypatch.setattr(blocks, "MANY", 1000)
    search(tmp_path / "a.h5", None, tmp_path / "many.tsv")
    assert "79800 pairs so far" in caplog.messages[-1]
    assert "--groups" in caplog.messages[-1]
    caplog.clear()
    search(tmp_path / "a.h5", tmp_path / "a.h5", tmp_path / "two.tsv")
    assert "pairs so far" in caplog.messages[0]
    assert "--groups" not in caplog.messages[0]


@pytest.mark.parametrize("option", [["B"], ["--part", "0/2"], ["--cosine", "0.5"], ["--neighbours", "3"]])
def test_groups_are_of_one_file_of_hashes(tmp_path: Path, option: list[str]) -> None:
    codes_file(tmp_path / "a.h5", 5, 1)
    option = [str(tmp_path / "a.h5") if word == "B" else word for word in option]
    result = CliRunner().invoke(main, ["dedup", "search", str(tmp_path / "a.h5"), *option, "--groups"])
    assert (result.exit_code, "--groups is for one file" in result.output) == (2, True)


def test_names_are_escaped(tmp_path: Path) -> None:
    code = np.zeros((1, 1), np.uint64)
    write_codes(tmp_path / "a", Codes(["a\tb\n\\"], code, np.array([100], np.uint8), "phash"))
    search(tmp_path / "a", tmp_path / "a", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a\\tb\\n\\\\\ta\\tb\\n\\\\\t0\n"


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    codes_file(tmp_path / "p.h5", 3, 1, "phash")
    codes_file(tmp_path / "d.h5", 3, 1, "dhash")
    run = CliRunner().invoke
    result = run(main, ["dedup", "search", str(tmp_path / "p.h5"), str(tmp_path / "d.h5")])
    assert result.exit_code == 2
    assert "phash version 1" in " ".join(result.output.split())
    assert "dhash version 1" in " ".join(result.output.split())
    with pytest.raises(SearchError, match="between 0 and 64"):
        search(tmp_path / "p.h5", None, None, Near(radius=65))
    content = bytearray((tmp_path / "p.h5").read_bytes())
    content[-20] ^= 1
    (tmp_path / "p.h5").write_bytes(content)
    result = run(main, ["dedup", "search", str(tmp_path / "p.h5"), "--out", str(tmp_path / "out")])
    assert (result.exit_code, "p.h5" in result.output) == (1, True)
    assert not (tmp_path / "out").exists()


def command(*arguments: str | Path) -> list[str]:
    """Blocks of 16, and slow, so that a kill finds something to interrupt."""
    code = (
        "import hpcscale.dedup.search as s, hpcscale.dedup.blocks as b; s.BLOCK = 16; b.PIECE = 50; "
        "import time; work = b._do; b._do = lambda *a: (time.sleep(0.03), work(*a)); "
        "from hpcscale.cli import main; main()"
    )
    return [sys.executable, "-c", code, "dedup", "search", *map(str, arguments)]


def kill_at(process: subprocess.Popen, file: Path) -> None:
    """Kill a search when the file is there; of the name "random", after a random time."""
    until = time.monotonic() + (random.uniform(0.3, 0.8) if file.name == "random" else 30)
    while process.poll() is None and time.monotonic() < until and not file.exists():
        time.sleep(0.001)
    process.kill()


@pytest.mark.parametrize("alone", [True, False])
def test_kill_9_then_the_same_bytes(tmp_path: Path, alone: bool) -> None:
    a, b = codes_file(tmp_path / "a.h5", 100, 1), codes_file(tmp_path / "b.h5", 70, 2)
    files = [tmp_path / "a.h5"] + [tmp_path / "b.h5"] * (not alone)
    out, killed = tmp_path / "out.tsv", 0
    for sign in ("task.json", "0-16.pairs", "32-48.pairs", "random", "piece-1"):
        process = subprocess.Popen(command(*files, "--out", out), stderr=subprocess.DEVNULL)
        kill_at(process, tmp_path / "out.tsv.parts" / sign)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    subprocess.run(
        command(*files, "--out", out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert out.read_text() == brute(a, None if alone else b, 31, 50)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5", "out.tsv", "out.tsv.json"]


def test_another_task_does_not_go_on_with_what_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes_file(tmp_path / "a.h5", 40, 1)
    monkeypatch.setattr(module, "BLOCK", 16)

    def full(*arguments: object) -> int:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "_write", full)
        with pytest.raises(OSError, match="no space"):
            search(tmp_path / "a.h5", None, tmp_path / "out")
    with pytest.raises(SearchError, match="interrupted search had other files or options"):
        search(tmp_path / "a.h5", None, tmp_path / "out", Near(radius=30))
    search(tmp_path / "a.h5", None, tmp_path / "out")
