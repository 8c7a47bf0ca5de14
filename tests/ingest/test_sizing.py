"""Without --shard-samples, shards get about as many bytes as wanted, whatever the pictures are."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_ingest import content

from hpcscale.data.manifest import read_plan
from hpcscale.ingest import sizing
from hpcscale.ingest.packing import OptionError, Packing, ingest, survey
from hpcscale.ingest.record import Record
from hpcscale.ingest.sizing import choose_shard_samples
from hpcscale.ingest.survey import SAMPLE, UNIT

RECORDS = 4 * UNIT


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 records of eight pictures; every tenth is no picture."""
    folder = tmp_path_factory.mktemp("sizing") / "source"
    folder.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).resize((96 + 16 * number, 96)).save(folder / f"{number}.jpg", quality=95)
    lines = [{"image": "none.jpg" if n % 10 == 3 else f"{n % 8}.jpg", "tags": ["a"]} for n in range(RECORDS)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("resize", [None, 32])
def test_shards_have_the_wanted_size(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: int | None
) -> None:
    whole = sum(
        one.bytes
        for one in ingest(source, tmp_path / "whole", packing=Packing(resize, shard_samples=RECORDS))
    )
    monkeypatch.setattr(sizing, "WANTED", (0.55 if resize is None else 0.7) * whole)
    entries = ingest(source, tmp_path / "out", packing=Packing(resize), workers=1)
    assert [round(one.bytes / whole, 1) for one in entries] == [0.5, 0.5]
    assert read_plan(tmp_path / "out").shard_samples == 2 * UNIT
    survey(source, tmp_path / "again", packing=Packing(resize), workers=3)
    for part in ((1, 2), (0, 2), None):
        ingest(source, tmp_path / "again", packing=Packing(resize), workers=2, part=part)
    assert content(tmp_path / "again") == content(tmp_path / "out")


def test_what_was_begun_with_another_number_goes_on_with_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ingest(source, out, packing=Packing(32, shard_samples=700), workers=1, part=(0, 3))
    assert len(ingest(source, out, packing=Packing(32), workers=1)) == 3
    with pytest.raises(OptionError, match="shard_samples was 700, now is 600"):
        ingest(source, out, packing=Packing(32, shard_samples=600), workers=1)


@pytest.mark.parametrize(("stored", "expected"), [(800, 2_000_000), (38_000, 52_000), (4_000_000, 500),
                                                  (60_000_000, 500)])  # fmt: skip
def test_few_large_pictures_or_many_small_ones(
    monkeypatch: pytest.MonkeyPatch, stored: int, expected: int
) -> None:
    def answers(records: list[Record], *of: object) -> object:
        return ((record, type("Stored", (), {"jpeg": bytes(stored)})()) for record in records)

    monkeypatch.setattr(sizing, "answers", lambda *of: (yield from answers(*of)))
    sample = [Record(str(n), ()) for n in range(20)]
    assert choose_shard_samples(sample, 10**9, None, 90, 1) == expected
    assert choose_shard_samples(sample, UNIT, None, 90, 1) == UNIT
    assert SAMPLE >= 100
