"""Recipes of dense tasks: the papers' numbers, lengths in epochs, what heads say."""

import pytest
from small_detectors import recipe

from hpcscale import config, sections, tasks
from hpcscale.train.schedule import lr

# Pictures of the data set; epochs (rounded) as the head says.
FACTS = {
    "sun2017_coco": (115_287, 26),
    "sun2017_voc": (16_551, 42),
    "sun2017_coco_frozen": (115_287, 13),
    "sun2017_deeplab": (10_582, 17),
    "sun2017_pose": (149_813, 72),  # persons
    "mahajan2018_mask_rcnn": (118_287, 12),
    "mahajan2018_keypoint_rcnn": (64_115, 32),
    "kolesnikov2020_retinanet": (118_287, 30),
}


def rates(settings, *steps):
    return [lr(settings.schedule, step, settings.train.steps) for step in steps]


def head(name):
    lines = (config.RECIPES / f"{name}.toml").read_text().splitlines()
    return lines[: lines.index("[data]")]


def test_every_recipe_of_a_dense_task_is_known():
    files = {file.stem: sections.read_toml(file) for file in config.RECIPES.glob("*.toml")}
    assert {name for name, values in files.items() if tasks.is_dense(values)} == FACTS.keys()


@pytest.mark.parametrize("name", FACTS)
def test_head_says_command_place_assumptions_and_what_to_expect(name):
    lines, text = head(name), " ".join(head(name))
    assert lines[0].startswith(f"# hpcscale train RUN --config {name}.toml ")
    assert all(line.startswith("#") and len(line) <= 124 for line in lines)
    for word in (" et al. 20", "Assumed", "Expected (", "We have not run it."):
        assert word in text


@pytest.mark.parametrize("name", FACTS)
def test_length_is_that_of_the_head_in_epochs(name):
    pictures, epochs = FACTS[name]
    train = recipe(name).train
    assert round(train.steps * train.batch / pictures) == epochs
    assert f"{epochs} epochs" in " ".join(head(name))


@pytest.mark.parametrize(
    ("name", "rate", "drop", "steps"),
    [
        ("sun2017_coco", 4e-4, 2.5e6, 3e6),
        ("sun2017_voc", 3e-4, 5e5, 7e5),
        ("sun2017_coco_frozen", 4e-4, 9e5, 1.5e6),
    ],
)
def test_nine_pictures_a_step_stand_for_nine_updates(name, rate, drop, steps):
    settings = recipe(name)
    at = settings.schedule.at[0]
    assert settings.train.batch == 9
    assert settings.train.steps * 9 == pytest.approx(steps, abs=9)
    assert at * 9 == pytest.approx(drop, abs=9)
    assert rates(settings, 0, at - 1, at) == pytest.approx([9 * rate, 9 * rate, 0.9 * rate])


@pytest.mark.parametrize(
    ("name", "rate", "drop", "steps"),
    [("sun2017_coco", 4e-4, 2_500_000, 3_000_000), ("sun2017_voc", 3e-4, 500_000, 700_000)],
)
def test_the_papers_own_workers_are_options_of_the_head(name, rate, drop, steps):
    text = " ".join(head(name))
    words = [f"schedule.lr={rate * 1e4:.0f}e-4", f"schedule.at=[{drop:_}]", f"train.steps={steps:_}"]
    words += ["train.batch=1", "downpour.workers=9"]
    assert all(word in text for word in words)
    settings = recipe(name, *words)
    assert (settings.downpour.workers, settings.train.batch, settings.train.steps) == (9, 1, steps)
    assert rates(settings, drop - 1, drop) == pytest.approx([rate, rate / 10])


@pytest.mark.parametrize("name", ["sun2017_coco", "sun2017_voc", "sun2017_coco_frozen"])
def test_numbers_of_faster_rcnn(name):
    settings = recipe(name)
    view, task, optimizer = settings.input, settings.detector, settings.optimizer
    assert (view.shorter, view.longer, view.mirror, view.jitter, view.window) == (
        600,
        1024,
        True,
        (1, 1),
        None,
    )
    assert (task.name, task.neck, task.frozen) == ("faster_rcnn", "conv4", 4 if "frozen" in name else 0)
    assert (task.rpn_batch, task.box_batch, task.proposals) == (64, 256, (300, 300))
    assert (task.rpn_positive, task.box_positive, task.rpn_nms, task.nms) == (0.5, 0.25, 0.7, 0.6)
    assert task.anchors == (64, 128, 256, 512)
    assert (optimizer.name, optimizer.momentum, optimizer.clip) == ("sgd", 0.9, 10)
    assert (settings.model.name, view.values) == ("resnet101", "signed")  # as sun2017_jft.toml trains it


def test_numbers_of_deeplab():
    settings = recipe("sun2017_deeplab")
    assert (settings.train.steps, settings.train.batch) == (30_000, 6)
    assert (settings.optimizer.momentum, settings.optimizer.weight_decay) == (0.9, 5e-4)
    assert (settings.schedule.lr, settings.schedule.power, settings.schedule.name) == (
        1e-3,
        0.9,
        "polynomial",
    )
    assert (settings.input.square, settings.input.mirror, settings.model.output_stride) == (513, False, 8)
    assert (settings.segmenter.rates, settings.segmenter.classes) == ((6, 12, 18, 24), 21)


def test_numbers_of_pose():
    settings = recipe("sun2017_pose")
    assert (settings.train.steps, settings.train.batch, settings.optimizer.momentum) == (450_000, 24, 0.9)
    assert rates(settings, 0, 249_999, 250_000) == pytest.approx([5e-3, 5e-3, 5e-4])
    task = settings.pose
    assert (task.crop, task.jitter, task.enlargement, task.radius) == ((353, 257), (1.0, 1.5), 1.25, 25)
    assert (task.heatmaps, task.offsets, task.intermediate, task.nms, task.oks) == (4, 1, 4, 0.6, 0.5)
    assert (settings.model.name, settings.model.output_stride) == ("resnet101", 8)
    assert settings.input.values == "signed"  # as sun2017_jft.toml trains it


def test_numbers_of_mask_rcnn():
    settings = recipe("mahajan2018_mask_rcnn")
    assert settings.model.name == "resnext101_32x8d"
    assert (settings.input.shorter, settings.input.longer, settings.detector.frozen) == (800, 1333, 2)
    assert rates(settings, 0, 500, 119_999, 120_000, 160_000) == pytest.approx(
        [1 / 300, 1e-2, 1e-2, 1e-3, 1e-4], rel=1e-3
    )
    assert (settings.train.batch, settings.train.steps) == (8, 180_000)
    twice = recipe("mahajan2018_mask_rcnn", "schedule.at=[240_000, 320_000]", "train.steps=360_000")
    assert all(word in " ".join(head("mahajan2018_mask_rcnn")) for word in ("[240_000, 320_000]", "360_000"))
    assert rates(twice, 239_999, 240_000, 320_000) == pytest.approx([1e-2, 1e-3, 1e-4])


def test_numbers_of_keypoint_rcnn():
    settings = recipe("mahajan2018_keypoint_rcnn")
    low, high = settings.input.jitter
    assert (settings.input.shorter * low, settings.input.shorter * high) == (640, 800)
    assert rates(settings, 0, 500, 100_000, 120_000) == pytest.approx([2 / 300, 2e-2, 2e-3, 2e-4], rel=1e-3)
    assert (settings.train.batch, settings.train.steps) == (16, 130_000)
    boxes = recipe("mahajan2018_mask_rcnn").detector
    assert settings.detector == boxes.model_copy(update={"name": "keypoint_rcnn"})


def test_numbers_of_retinanet():
    settings, epoch = recipe("kolesnikov2020_retinanet"), 118_287 / 256
    assert (settings.schedule.warmup, *settings.schedule.at) == tuple(round(n * epoch) for n in (1, 16, 22))
    assert settings.train.steps == -(-30 * 118_287 // 256)
    at = (0, round(epoch), round(16 * epoch) - 1, round(16 * epoch), round(22 * epoch))
    assert rates(settings, *at) == pytest.approx([8e-3, 8e-2, 8e-2, 8e-3, 8e-4])
    task, view, optimizer = settings.detector, settings.input, settings.optimizer
    assert (task.alpha, task.gamma, task.huber, task.localisation) == (0.25, 2, 0.1, 50 / 4)
    assert (task.anchors, task.ratios, task.match) == ((32,), (0.5, 1, 2), (0.5, 0.5))
    assert (view.shorter, view.longer, view.window, view.jitter) == (1024, 1024, 1024, (0.8, 1.2))
    assert (optimizer.momentum, optimizer.weight_decay, settings.model.name) == (0.9, 1e-4, "bit_r101x3")
