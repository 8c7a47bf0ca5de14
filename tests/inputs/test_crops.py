"""Crops of rows 19 and 20: their places, boxes and sizes, and their pixels against Pillow."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from reference import cuts
from scipy import stats
from skimage import data as photographs
from stored import Pictures

from hpcscale import config
from hpcscale.config import Config, ConfigError, Input, check
from hpcscale.data.order import Whole, draws
from hpcscale.inputs import decoder, pipeline
from hpcscale.inputs.boxes import DRAWS, random_boxes
from hpcscale.inputs.crops import Crops, Steps, centre_crops, random_crops
from hpcscale.inputs.reading import Reading, decode
from hpcscale.models.preprocessing import Normalized

CPU = torch.device("cpu")
MANY = 20_000
INCEPTION = Input(method="inception", crop=64)


class Sizes:
    """A data set of which only the sizes of pictures are known."""

    folder = "sizes"

    def __init__(self, sizes: np.ndarray, stored_size: int | None = None) -> None:
        self.all, self.samples, self.stored_size = sizes.astype(np.int32), len(sizes), stored_size

    def sizes(self, samples: np.ndarray) -> np.ndarray:
        return self.all[samples]


def alike(height: int, width: int, stored: int | None = None) -> Sizes:
    return Sizes(np.tile([height, width], (MANY, 1)), stored)


def cropped(data: Sizes, input: Input, count: int = MANY, seed: int = 5) -> Crops:
    return random_crops(data, Whole(data.samples, seed), input, seed)(np.arange(count))


def uniform(values: np.ndarray, low: int, high: int) -> float:
    """p of the chi-square test that integers are uniform in [low, high]."""
    counts = np.bincount(values - low, minlength=high - low + 1)
    assert len(counts) == high - low + 1
    return stats.chisquare(counts).pvalue


def test_row_19_offsets_and_mirrors_of_340_to_299_are_uniform() -> None:
    crops = cropped(alike(340, 340, 340), Input(crop=299))
    assert (crops.windows == [0, 0, 340, 340]).all()
    assert (crops.sizes == 340).all()
    for side in (0, 1):
        assert uniform(crops.starts[:, side], 0, 41) > 0.01
    assert abs(crops.mirror.mean() - 0.5) < 3 * 0.5 / MANY**0.5
    pairs = stats.chi2_contingency(np.histogram2d(*crops.starts.T, bins=6)[0]).pvalue
    assert pairs > 0.01  # top and left do not depend on one another
    own = cropped(alike(500, 375), Input(crop=299, resize=340))  # resized by the decoder instead of by ingest
    np.testing.assert_array_equal(own.starts, crops.starts)
    assert (own.windows == [0, 0, 500, 375]).all()
    assert (own.sizes == 340).all()


def test_row_19_values_are_from_minus_one_to_one() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).view(1, 16, 16, 3).permute(0, 3, 1, 2)
    found = Normalized()(images, "signed")
    assert (found.min(), found.max(), found.dtype) == (-1, 1, torch.float32)
    assert torch.equal(found, (images.float() - 127.5) * (1 / 127.5))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_row_20_values_of_imagenet_are_by_channel() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    wanted = (images.float() / 255 - mean) / deviation
    torch.testing.assert_close(Normalized()(images, "imagenet"), wanted, rtol=0, atol=1e-6)


def test_row_20_boxes_are_those_of_ten_attempts() -> None:
    chance = np.random.default_rng(2)
    sizes = np.concatenate([chance.integers(1, 900, (300, 2)), [[1, 900], [900, 1], [1, 1], [50, 400]]])
    middles = 0
    crops = cropped(Sizes(sizes), INCEPTION, len(sizes) * 3)
    samples, turns = Whole(len(sizes), 5).samples_at(crops.places)
    random = draws(5, turns, samples, 3 + DRAWS)
    for sample, row, window in zip(samples, random.tolist(), crops.windows, strict=True):
        height, width = (int(side) for side in sizes[sample])
        found = cuts.box(height, width, (number / 2**32 for number in row[3:]), (0.08, 1), (3 / 4, 4 / 3))
        if found is None:
            middles += 1
            assert tuple(window) == cuts.middle(height, width, (3 / 4, 4 / 3))
        else:
            h, w, rows, columns = found
            assert tuple(window) == (row[0] * rows >> 32, row[1] * columns >> 32, h, w)
    assert 10 < middles < 400
    assert (crops.sizes == 64).all()
    assert (crops.starts == 0).all()


def test_row_20_areas_and_aspects_have_their_laws() -> None:
    """Of squares whose largest boxes of every aspect fit, no attempt fails: the laws are those drawn from."""
    input = Input(method="inception", crop=64, area=(0.08, 0.7))
    crops = cropped(alike(3000, 3000), input)
    heights, widths = crops.windows[:, 2:].T.astype(float)
    areas, aspects = heights * widths / 3000**2, np.log(widths / heights)
    assert stats.kstest(areas, stats.uniform(0.08, 0.62).cdf).pvalue > 0.01
    assert stats.kstest(aspects, stats.uniform(np.log(3 / 4), 2 * np.log(4 / 3)).cdf).pvalue > 0.01
    assert abs(np.corrcoef(areas, aspects)[0, 1]) < 0.03
    tops = crops.windows[:, 0] / (3000 - heights + 1)
    assert stats.kstest(tops, "uniform").pvalue > 0.01
    assert abs(crops.mirror.mean() - 0.5) < 3 * 0.5 / MANY**0.5
    whole = cropped(alike(400, 300), INCEPTION)  # within the limits, up to the rounding of a side
    heights, widths = whole.windows[:, 2:].T.astype(float)
    assert (heights * widths >= 0.079 * 400 * 300).all()
    assert (np.abs(np.log(widths / heights)) < np.log(4 / 3) + 0.02).all()
    assert (whole.windows[:, :2] + whole.windows[:, 2:] <= [400, 300]).all()


def test_row_20_the_shorter_side_is_resized_and_the_centre_is_torchvisions() -> None:
    sizes = np.random.default_rng(3).integers(1, 3000, (200, 2))
    input = Input(method="short", crop=224, resize=256)
    crops = centre_crops(Sizes(sizes), np.arange(200), input)(np.arange(200))
    for (height, width), size, start in zip(sizes.tolist(), crops.sizes.tolist(), crops.starts, strict=True):
        long = int(256 * max(height, width) / min(height, width))
        assert size == ([256, long] if height <= width else [long, 256])
        assert start.tolist() == [round((side - 224) / 2.0) for side in size]
    assert not crops.mirror.any()
    trained = cropped(alike(480, 640), input)
    assert (trained.sizes == [256, 341]).all()
    assert uniform(trained.starts[:, 0], 0, 32) > 0.01
    assert uniform(trained.starts[:, 1], 0, 117) > 0.01


@pytest.mark.parametrize("input", [INCEPTION, Input(method="short", crop=40, resize=48)])
def test_row_20_crops_are_a_function_of_seed_epoch_and_sample(input: Input) -> None:
    data = Sizes(np.random.default_rng(4).integers(60, 300, (50, 2)))
    cut = random_crops(data, Whole(50, 5), input, 5)
    whole = cut(np.arange(150))
    for places in (np.arange(70, 90), np.array([149]), np.array([3, 120, 7])):
        for one, all_ in zip(cut(places), whole, strict=True):
            np.testing.assert_array_equal(one, all_[places])
    assert len(np.unique(np.column_stack([whole.samples, whole.windows, whole.starts]), axis=0)) > 140
    other = random_crops(data, Whole(50, 5), input, 6)(np.arange(150))
    assert (other.windows != whole.windows).any() or (other.starts != whole.starts).any()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Pictures of many sizes and shapes, without colour subsampling, in which decoders might differ."""
    whole = Image.fromarray(photographs.astronaut())
    found = []
    for k in range(12):
        part = whole.crop((20 * k, 10 * k, 20 * k + 110 + 17 * k, 10 * k + 330 - 19 * k))
        found.append(encoded(part))
    return found


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling="4:4:4")
    return file.getvalue()


@pytest.mark.parametrize("resize", [72, 120])
@pytest.mark.parametrize("method", ["square", "short", "inception"])
def test_row_20_pixels_are_pillows(files: list[bytes], method: str, resize: int) -> None:
    input = Input(method=method, crop=64, resize=None if method == "inception" else resize)
    data, order = Pictures(files, None), Whole(len(files), 5)
    (batch,) = pipeline.train_batches(data, order, input, Steps(0, 1, 24), 5, CPU)
    crops = random_crops(data, order, input, 5)(np.arange(24))
    assert 0 < crops.mirror.sum() < 24
    compared(batch, crops, files)


def test_row_20_pixels_of_an_evaluation_are_pillows(files: list[bytes]) -> None:
    input = Input(method="short", crop=64, resize=72)
    data, samples = Pictures(files, None), np.arange(len(files))
    (batch,) = pipeline.evaluate_batches(data, samples, input, batch=len(files), device=CPU)
    compared(batch, centre_crops(data, samples, input)(samples), files)


def compared(batch: pipeline.Batch, crops: Crops, files: list[bytes]) -> None:
    seen = batch.images.permute(0, 2, 3, 1).numpy().astype(int)
    for row, sample in enumerate(batch.samples):
        image = Image.open(io.BytesIO(files[sample])).convert("RGB")
        wanted = cuts.seen(
            image, crops.windows[row], crops.sizes[row], crops.starts[row], crops.mirror[row], 64
        )
        # Resized as Pillow does; other builds of libjpeg may differ by a level.
        assert np.abs(seen[row] - wanted).max() <= 1


@pytest.mark.parametrize(
    ("method", "resize"), [("square", None), ("square", 72), ("short", 72), ("inception", None)]
)
def test_pixels_are_those_of_dali(files: list[bytes], method: str, resize: int | None) -> None:
    """Equal where nothing is resized; else DALI, which rounds otherwise than Pillow, is a few levels off."""
    stored = None if method == "inception" or resize else 72
    if stored:
        small = [Image.open(io.BytesIO(file)).resize((72, 72)) for file in files]
        files = [encoded(image) for image in small]
    input = Input(method=method, crop=64, resize=resize)
    reading = Reading(Pictures(files, stored), input, CPU)
    crops = random_crops(reading.data, Whole(len(files), 5), input, 5)(np.arange(24))
    ours = np.empty((24, 64, 64, 3), np.uint8)
    assert decode(reading, crops, ours) == [None] * 24
    pipe = decoder.decoder(reading, iter([decoder.inputs(reading, crops)]), 24, 1)
    theirs = np.asarray(pipe.run()[0].as_tensor())
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= (0 if stored else 12)
    assert difference.mean() < 1


def recipe(input: dict[str, object], evaluate: dict[str, object]) -> Config:
    values = {"data": {"train": "a", "vocabulary": "b"}, "schedule": {"lr": 1.0},
              "train": {"steps": 1, "batch": 2}, "input": input, "evaluate": evaluate}  # fmt: skip
    return check(Config, values, "test")


@pytest.mark.parametrize(
    ("input", "evaluate", "message"),
    [
        ({"method": "inception", "resize": 256}, {"method": "square"}, "resizes its boxes"),
        ({"method": "inception"}, {}, r"evaluate\.method: missing"),
        ({"method": "inception"}, {"method": "short"}, r"evaluate\.resize: missing"),
        ({"method": "short"}, {}, "needs the key 'resize'"),
        ({"area": [0.5, 0.1]}, {}, "'area' is a range"),
        ({"area": [0.5, 1.5]}, {}, "'area' is a range"),
        ({"area": [0.0, 1.0]}, {}, "greater than 0"),
        ({"ratio": [2.0, 1.0]}, {}, "'ratio' is the least"),
        ({"values": "caffe"}, {}, "'signed' or 'imagenet'"),
    ],
)
def test_row_20_inputs_that_make_no_sense_are_refused(input, evaluate, message) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(input, evaluate)


def test_row_20_training_and_evaluation_have_sections_of_their_own() -> None:
    found = recipe(
        {"method": "inception", "crop": 224, "values": "imagenet"}, {"method": "short", "resize": 256}
    )
    seen = config.seen(found)
    assert (seen.method, seen.crop, seen.resize, seen.values) == ("short", 224, 256, "imagenet")
    assert (found.input.method, found.input.resize) == ("inception", None)
    with pytest.raises(ConfigError, match="draws boxes"):
        centre_crops(alike(9, 9), np.arange(1), found.input)
    with pytest.raises(ConfigError, match=r"crop: found 224, .* resized to 200 x more; allowed are 1 to 200"):
        centre_crops(alike(9, 9), np.arange(1), Input(method="short", crop=224, resize=200))


def test_boxes_of_extreme_ratios_have_a_pixel() -> None:
    zeros = np.zeros((2, 2), np.uint32), np.zeros((2, DRAWS), np.uint32)
    input = Input(method="inception", crop=8, ratio=(50.0, 60.0))
    found = random_boxes(np.array([[30, 5], [7, 9]], np.int32), *zeros, input)
    assert (found[:, 2:] > 0).all()
