"""pipeline.py against decoding with Pillow and cropping in NumPy; resume, world sizes, and bad pictures.

Pillow and DALI both decode through libjpeg-turbo, and decoding a crop gives the bits of cropping what was
decoded: in 4000 random 299 x 299 crops of photographs stored at 340 x 340, 4:2:0, no value differed from
simplejpeg's. Another build of libjpeg may differ by one level, hence the tolerance. After a resize pixels
differ more, since DALI and Pillow filter in other ways.
"""

import io
import json
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from stored import Pictures

from hpcscale.config import ConfigError, Input
from hpcscale.data.order import Whole, below, draws
from hpcscale.data.store import DataError, DataSet, open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.inputs import pipeline
from hpcscale.inputs.crops import Steps
from hpcscale.inputs.pipeline import BadSample, Batch

CPU = torch.device("cpu")
SIDE, CROP = 72, 61
INPUT = Input(crop=CROP)


def encode(image: Image.Image, subsampling: str = "4:2:0") -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, subsampling=subsampling)
    return file.getvalue()


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    """24 different pictures of SIDE x SIDE, some grey, some without colour subsampling."""
    astronaut = Image.fromarray(photographs.astronaut())
    images = [
        astronaut.crop((20 * k, 7 * k, 20 * k + 3 * SIDE, 7 * k + 3 * SIDE)).resize((SIDE, SIDE))
        for k in range(24)
    ]
    return [
        encode(image.convert("L") if k == 5 else image, "4:4:4" if k % 4 == 1 else "4:2:0")
        for k, image in enumerate(images)
    ]


def pixels(jpeg: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(bytes(jpeg))).convert("RGB"))


def planes(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64).transpose(2, 0, 1)


def train(
    data: Pictures | DataSet, first_step: int = 0, steps: int = 5, rank: int = 0, size: int = 1, **keys
) -> list[Batch]:
    """All batches of a rank, with copies of their images."""
    settings = {"seed": 3, "device": CPU, "input": INPUT} | keys
    order = settings.pop("order", None) or Whole(data.samples, 3)
    settings["steps"] = Steps(
        first_step, steps, settings.pop("batch", 8), rank, size, settings.pop("parts", 1)
    )
    return kept(pipeline.train_batches(data, order, **settings))


def kept(batches: Iterable[Batch]) -> list[Batch]:
    return [batch._replace(images=batch.images.clone()) for batch in batches]


def assert_equal(one: list[Batch], two: list[Batch]) -> None:
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first.images, second.images)
        for a, b in zip(first[1:], second[1:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_train_batches_are_the_chosen_crops(jpegs: list[bytes]) -> None:
    order = Whole(len(jpegs), 3, held_out=0.25)
    batches = train(Pictures(jpegs, SIDE), order=order, steps=9)  # 4 epochs of 18: batches cross their ends
    samples, epochs = order.samples_at(np.arange(72))
    np.testing.assert_array_equal(np.concatenate([batch.samples for batch in batches]), samples)
    random = draws(3, epochs, samples, 3)
    tops, lefts = (below(random[:, k], SIDE - CROP + 1) for k in (0, 1))
    assert len(set(tops)) > 6
    assert {*random[:, 2] >> 31} == {0, 1}
    images = torch.cat([batch.images for batch in batches]).numpy()
    for image, sample, top, left, draw in zip(images, samples, tops, lefts, random[:, 2], strict=True):
        crop = pixels(jpegs[sample])[top : top + CROP, left : left + CROP]
        expected = planes(crop[:, ::-1] if draw >> 31 else crop)
        np.testing.assert_allclose(image, expected, atol=1)
        assert np.mean(image != expected) < 0.01


def test_batches_have_the_stated_form(jpegs: list[bytes]) -> None:
    (batch,) = train(Pictures(jpegs, SIDE), steps=1)
    assert batch.images.shape == (8, 3, CROP, CROP)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.samples.dtype == np.int64
    np.testing.assert_array_equal(batch.tag_offsets, np.arange(9))
    np.testing.assert_array_equal(batch.tag_ids, batch.samples % 2)


def test_buffers_are_used_again(jpegs: list[bytes]) -> None:
    order = Whole(len(jpegs), 3)
    where = {"steps": Steps(0, 9, 8), "seed": 3, "device": CPU}
    pointers = {
        batch.images.data_ptr()
        for batch in pipeline.train_batches(Pictures(jpegs, SIDE), order, INPUT, **where)
    }
    assert len(pointers) == 1 + INPUT.prefetch


def test_mirror_can_be_switched_off_and_changes_nothing_else(jpegs: list[bytes]) -> None:
    plain = train(Pictures(jpegs, SIDE), input=Input(crop=CROP, mirror=False), steps=3)
    mirrored = 0
    for one, two in zip(plain, train(Pictures(jpegs, SIDE), steps=3), strict=True):
        flags = draws(3, np.zeros(8, np.int64), one.samples, 3)[:, 2] >> 31
        for image, other, flag in zip(one.images, two.images, flags, strict=True):
            assert torch.equal(image.flip(2) if flag else image, other)
        mirrored += int(flags.sum())
    assert 0 < mirrored < 24


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_resume_is_the_tail_of_an_uninterrupted_run(jpegs: list[bytes], prefetch: int) -> None:
    settings = Input(crop=CROP, prefetch=prefetch, threads=2)
    whole = train(Pictures(jpegs, SIDE), steps=9)
    for first in (0, 1, 4, 8):
        assert_equal(train(Pictures(jpegs, SIDE), first, 9 - first, input=settings), whole[first:])


@pytest.mark.parametrize("size", [2, 4])
def test_world_sizes_share_one_sequence(jpegs: list[bytes], size: int) -> None:
    alone = train(Pictures(jpegs, SIDE))
    ranks = [train(Pictures(jpegs, SIDE), rank=rank, size=size) for rank in range(size)]
    for step, batch in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        np.testing.assert_array_equal(np.concatenate([part.samples for part in parts]), batch.samples)
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_the_parts_of_a_step_are_its_batch(jpegs: list[bytes]) -> None:
    for rank in (0, 1):
        whole = train(Pictures(jpegs, SIDE), rank=rank, size=2)
        parts = train(Pictures(jpegs, SIDE), rank=rank, size=2, parts=2)
        assert len(parts) == 2 * len(whole)
        for step, batch in enumerate(whole):
            two = parts[2 * step : 2 * step + 2]
            assert [len(part.samples) for part in two] == [2, 2]
            np.testing.assert_array_equal(np.concatenate([part.samples for part in two]), batch.samples)
            assert torch.equal(torch.cat([part.images for part in two]), batch.images)
    with pytest.raises(ConfigError, match="2 ranks in 3 parts"):
        train(Pictures(jpegs, SIDE), rank=0, size=2, parts=3)


def test_no_step_is_no_batch(jpegs: list[bytes]) -> None:
    assert train(Pictures(jpegs, SIDE), steps=0) == []


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (5, [5]), (13, [5, 5, 3])])
def test_evaluation_takes_every_centre_once(jpegs: list[bytes], count: int, sizes: list[int]) -> None:
    samples = np.arange(count)[::-1].copy()
    batches = kept(pipeline.evaluate_batches(Pictures(jpegs, SIDE), samples, INPUT, batch=5, device=CPU))
    assert [len(batch.images) for batch in batches] == sizes
    for batch in batches:
        np.testing.assert_array_equal(batch.tag_ids, batch.samples % 2)
        for image, sample in zip(batch.images.numpy(), batch.samples, strict=True):
            crop = pixels(jpegs[sample])[6 : 6 + CROP, 6 : 6 + CROP]
            np.testing.assert_allclose(image, planes(crop), atol=1)
    if count:
        np.testing.assert_array_equal(np.concatenate([batch.samples for batch in batches]), samples)


def test_pictures_stored_at_their_own_size_are_resized(jpegs: list[bytes]) -> None:
    whole = Image.fromarray(photographs.astronaut())
    files = [encode(whole.crop((0, 0, 300 + 10 * k, 200 + 30 * k)), "4:4:4") for k in range(4)]
    data = Pictures(files, stored_size=None)
    (batch,) = kept(
        pipeline.evaluate_batches(data, np.arange(4), Input(crop=CROP, resize=SIDE), batch=4, device=CPU)
    )
    for image, file in zip(batch.images.numpy(), files, strict=True):
        small = Image.fromarray(pixels(file)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        crop = np.asarray(small)[6 : 6 + CROP, 6 : 6 + CROP]
        difference = np.abs(image - planes(crop))
        assert difference.mean() < 1
        assert difference.max() < 12
    (trained,) = train(data, steps=1, batch=4, input=Input(crop=CROP, resize=SIDE))
    assert trained.images.shape == (4, 3, CROP, CROP)
    # Stored pictures may be resized once more.
    (smaller,) = train(Pictures(jpegs, SIDE), steps=1, input=Input(crop=32, resize=32, mirror=False))
    for image, sample in zip(smaller.images.numpy(), smaller.samples, strict=True):
        small = Image.fromarray(pixels(jpegs[sample])).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(image - planes(np.asarray(small))).mean() < 1


def test_settings_that_do_not_fit_are_errors_before_the_first_batch(jpegs: list[bytes]) -> None:
    data, own = Pictures(jpegs, SIDE), Pictures(jpegs, stored_size=None)
    where = {"steps": Steps(0, 1, 8), "seed": 0, "device": CPU}
    order = Whole(len(jpegs), 0)
    with pytest.raises(ConfigError, match=r"input\.crop: found 99, .*pictures are 72 x 72"):
        pipeline.train_batches(data, order, Input(crop=99), **where)
    with pytest.raises(ConfigError, match=r"input\.resize: missing"):
        pipeline.train_batches(own, order, INPUT, **where)
    with pytest.raises(ConfigError, match=r"input\.crop: found 61, .* resized to 60 x 60"):
        pipeline.evaluate_batches(data, np.arange(3), Input(crop=CROP, resize=60), batch=2, device=CPU)
    with pytest.raises(ConfigError, match=r"train\.batch: 8 .* 3 ranks"):
        pipeline.train_batches(data, order, INPUT, **(where | {"steps": Steps(0, 1, 8, 0, 3)}))


def broken(jpegs: list[bytes]) -> dict[int, bytes]:
    """Pictures by sample id that DALI cannot decode, whatever the crop."""
    return {
        2: bytes(500),
        3: b"",
        9: b"\0" + jpegs[9][1:],
        10: jpegs[10][: len(jpegs[10]) // 3],
        17: encode(Image.new("RGB", (20, 20))),  # smaller than the crop
    }


def test_bad_samples_are_reported_and_replaced_and_nothing_else_changes(jpegs: list[bytes]) -> None:
    bad = broken(jpegs)
    torn = Pictures([bad.get(k, jpeg) for k, jpeg in enumerate(jpegs)], SIDE)
    reports: list[BadSample] = []
    whole, batches = train(Pictures(jpegs, SIDE), steps=9), train(torn, steps=9, tell=reports.append)
    assert sorted(report.sample for report in reports) == sorted(bad)
    assert {report.name for report in reports} == {f"{k}.jpg" for k in bad}
    assert all("bytes, first" in report.reason for report in reports)
    # The rule: a place whose sample is bad shows what the next good place shows.
    places = np.arange(9 * 8 + len(bad))
    samples = Whole(24, 3).samples_at(places)[0]
    pictures = torch.cat([batch.images for batch in train(Pictures(jpegs, SIDE), steps=10)])
    seen = np.concatenate([batch.samples for batch in batches])
    images = torch.cat([batch.images for batch in batches])
    replaced = 0
    for place in range(9 * 8):
        source = next(k for k in places[place:] if samples[k] not in bad)
        replaced += source != place
        assert seen[place] == samples[source]
        assert torch.equal(images[place], pictures[source])
    assert replaced == 3 * len(bad)
    for batch in batches:
        np.testing.assert_array_equal(batch.tag_ids, batch.samples % 2)
    assert torch.equal(whole[0].images[:1], batches[0].images[:1]) or whole[0].samples[0] in bad


@pytest.mark.parametrize("prefetch", [1, 3])
def test_resume_and_world_size_see_the_same_replacements(jpegs: list[bytes], prefetch: int) -> None:
    bad = broken(jpegs)
    torn = Pictures([bad.get(k, jpeg) for k, jpeg in enumerate(jpegs)], SIDE)
    quiet = {"tell": lambda bad: None, "input": Input(crop=CROP, prefetch=prefetch)}
    whole = train(torn, steps=9, tell=lambda bad: None)
    for first in (1, 4, 8):
        assert_equal(train(torn, first, 9 - first, **quiet), whole[first:])
    halves = [train(torn, steps=9, rank=rank, size=2, **quiet) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([half[step].images for half in halves]), batch.images)


def test_picture_cut_at_its_end_is_replaced_only_where_its_crop_needs_the_lost_rows(
    jpegs: list[bytes],
) -> None:
    """What is known of a sample must not change its next use: a resumed run does not know it."""
    cut = Pictures([jpeg[: int(len(jpeg) * 0.97)] if k == 4 else jpeg for k, jpeg in enumerate(jpegs)], SIDE)
    whole = train(cut, steps=60, seed=4, tell=lambda bad: None)
    uses = sum(int((batch.samples == 4).sum()) for batch in whole)
    assert 0 < uses < 20  # 20 epochs: some crops decode, some do not
    for first in (7, 31, 55):
        assert_equal(train(cut, first, 60 - first, seed=4, tell=lambda bad: None), whole[first:])


def test_held_out_samples_never_replace_bad_ones(jpegs: list[bytes]) -> None:
    order = Whole(24, 3, held_out=0.5)
    bad = set(order.samples_at(np.arange(4))[0].tolist())
    torn = Pictures([b"" if k in bad else jpeg for k, jpeg in enumerate(jpegs)], SIDE)
    batches = train(torn, steps=6, order=order, tell=lambda bad: None)
    seen = {sample for batch in batches for sample in batch.samples.tolist()}
    assert seen == set(order.samples_at(np.arange(12))[0].tolist()) - bad


def test_evaluation_leaves_bad_samples_out(jpegs: list[bytes]) -> None:
    bad = {1, 5, 6, 7, 8, 9}  # all of the second batch, and one of the first
    torn = Pictures([b"" if k in bad else jpeg for k, jpeg in enumerate(jpegs)], SIDE)
    reports: list[BadSample] = []
    where = {"batch": 5, "device": CPU, "tell": reports.append}
    batches = kept(pipeline.evaluate_batches(torn, np.arange(24), INPUT, **where))
    assert [batch.samples.tolist() for batch in batches] == [
        [0, 2, 3, 4],
        [10, 11, 12, 13, 14],
        [15, 16, 17, 18, 19],
        [20, 21, 22, 23],
    ]
    assert {report.sample for report in reports} == bad
    expected = kept(
        pipeline.evaluate_batches(Pictures(jpegs, SIDE), batches[0].samples, INPUT, batch=5, device=CPU)
    )
    assert torch.equal(batches[0].images, expected[0].images)


def test_too_many_bad_samples_stop_the_run(jpegs: list[bytes]) -> None:
    half = Pictures([b"" if k % 2 else jpeg for k, jpeg in enumerate(jpegs)], SIDE)
    assert len(train(half, steps=6, tell=lambda bad: None)) == 6  # 12 of 24: just allowed
    worse = Pictures([b"" if k % 2 or k == 4 else jpeg for k, jpeg in enumerate(jpegs)], SIDE)
    with pytest.raises(DataError, match=r"13 of about .*hpcscale data verify"):
        train(worse, steps=6, tell=lambda bad: None)
    with pytest.raises(DataError, match="cannot be decoded"):
        train(Pictures([b""], SIDE), steps=1, batch=1, tell=lambda bad: None)
    nothing = pipeline.evaluate_batches(Pictures([b""] * 60, SIDE), np.arange(60), INPUT, batch=5, device=CPU)
    with pytest.raises(DataError, match="17 of"), closing(nothing):
        next(nothing)


def test_errors_that_no_sample_causes_are_not_swallowed(
    jpegs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(pipeline, "decode", fail)
    with pytest.raises(RuntimeError, match="no memory left"):
        train(Pictures(jpegs, SIDE))


def test_closing_frees_the_pipeline(jpegs: list[bytes]) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    settings = {"input": Input(crop=CROP, threads=3), "steps": Steps(0, 9, 8), "seed": 3}
    before = threads()
    batches = pipeline.train_batches(Pictures(jpegs, SIDE), Whole(24, 3), **settings, device=CPU)
    next(batches)
    assert threads() > before
    batches.close()
    for _ in range(100):  # the kernel forgets a thread a little after it has ended
        if threads() == before:
            return
        time.sleep(0.01)
    raise AssertionError(f"{threads()} threads, {before} before")


def test_real_shards_give_the_batches_of_the_same_bytes_in_memory(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    lines = []
    for k in range(12):
        Image.fromarray(photographs.astronaut()[20 * k : 20 * k + 200, :200]).save(
            tmp_path / f"source/{k}.png"
        )
        lines.append(json.dumps({"image": f"{k}.png", "tags": [f"tag {k % 3}", "all"]}))
    (tmp_path / "source/manifest.jsonl").write_text("\n".join(lines))
    ingest(tmp_path / "source", tmp_path / "data", packing=Packing(SIDE, shard_samples=5), workers=1)
    data = open_data(tmp_path / "data")
    batches = train(data, steps=3)
    memory = Pictures([bytes(jpeg) for jpeg in data.jpegs(np.arange(12))], SIDE)
    for batch, other in zip(batches, train(memory, steps=3), strict=True):
        assert torch.equal(batch.images, other.images)
        np.testing.assert_array_equal(batch.samples, other.samples)
        for row, sample in enumerate(batch.samples):
            ids = batch.tag_ids[batch.tag_offsets[row] : batch.tag_offsets[row + 1]]
            assert [data.tags[k] for k in ids] == [f"tag {sample % 3}", "all"]


@pytest.mark.gpu
def test_gpu_batches_equal_cpu_batches(jpegs: list[bytes]) -> None:
    """Written by DALI's documentation; nothing of the GPU path could be run where it was written: it had no
    GPU. nvJPEG rounds otherwise than libjpeg, so pixels may differ by a few levels of 255."""
    device = torch.device("cuda")
    on_gpu = train(Pictures(jpegs, SIDE), device=device)
    for one, two in zip(on_gpu, train(Pictures(jpegs, SIDE)), strict=True):
        assert one.images.device.type == "cuda"
        assert one.images.is_contiguous(memory_format=torch.channels_last)
        difference = (one.images.cpu().float() - two.images.float()).abs()
        assert difference.mean() < 1
        assert difference.max() < 16
        np.testing.assert_array_equal(one.samples, two.samples)
