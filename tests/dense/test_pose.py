"""Poses of persons: who is trained on, what is seen of them, losses, records, runs."""

import json
import math

import numpy as np
import posed
import pytest
import thin
import torch
from click.testing import CliRunner
from places import PHOTOGRAPHS

from hpcscale import config, tasks
from hpcscale.annotations import reader
from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.data.order import Whole
from hpcscale.data.store import open_data
from hpcscale.dense import batches, people, pose, pose_network, pose_targets, training, truths
from hpcscale.dense.order import Order
from hpcscale.evaluate import coco, oks
from hpcscale.evaluate.measured import ResultsError
from hpcscale.inputs.crops import Steps
from hpcscale.models import checkpoint


@pytest.fixture(scope="module", autouse=True)
def _thin_network():
    with thin.network(), thin.own_settings():
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return posed.make(tmp_path_factory.mktemp("posed"))


def load(recipe, *sets):
    settings = tasks.load(recipe, sets)
    assert isinstance(settings, tasks.Dense)
    return settings


def batch(recipe, number, *sets):
    """A batch of six, by the order of a run."""
    settings = load(recipe, "train.batch=6", *sets)
    inputs = training.open_inputs(settings)
    task = training._task(settings, inputs.table, None)
    order = Order(inputs.ids, Whole(len(inputs.ids), 0), inputs.objects)
    steps = Steps(number, 1, 6)
    (found,) = batches.training_batches(inputs.data, order, settings, steps, task.wanted, pytest.fail)
    return found


def test_row_50_a_sample_is_a_person(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        posed.draw(tmp_path / "pictures" / f"{number}.jpg", [])
    points = posed.points(np.random.default_rng(0), posed.BOXES[0])
    nobody, box = points * [1, 1, 0], posed.BOXES[0]
    rows = [
        posed.row(1, 0, nobody, box),  # no visible point
        posed.row(2, 0, points, box),
        posed.row(3, 1, points, box, iscrowd=1),
        posed.row(4, 1, points, box, ignore=1),
        posed.row(5, 2, points, box),
        posed.row(6, 2, points, [5, 10, 0.1, 95.0]),  # too thin to be seen
        {"id": 7, "image_id": 2, "category_id": 1, "bbox": box, "area": 1, "iscrowd": 0, "segmentation": []},
        posed.row(8, 2, points, posed.BOXES[1]),
    ]
    data = open_data(posed.pack(tmp_path, rows, 3))
    samples, objects = people.trained_on(data, tasks.Pose(crop=(57, 41)))
    ids = [int(reader.objects(data, np.array([s]))[0].ids[o]) for s, o in zip(samples, objects, strict=True)]
    assert samples.tolist() == [0, 2, 2]
    assert ids == [2, 5, 8]


def test_row_50_every_person_comes_once_an_epoch_with_draws_of_its_own(recipe):
    one, again, next_epoch = batch(recipe, 0), batch(recipe, 0), batch(recipe, 1)
    assert sorted(one.samples.tolist()) == [0, 1, 1, 2, 3, 3]
    for a, b in zip(one.seen, again.seen, strict=True):
        assert a.view == b.view
        assert np.array_equal(a.pixels, b.pixels)
    both = [seen.view.scaled for seen in one.seen if seen.sample == 1]
    assert both[0] != both[1]
    assert [seen.view for seen in one.seen] != [seen.view for seen in next_epoch.seen]
    factors = []
    for seen in (*one.seen, *next_epoch.seen, *batch(recipe, 2).seen):
        # Heights of the boxes in the shape of a crop: the second person of a picture is wide.
        height = (95.0, 70 * 57 / 41)[seen.subject]
        factors.append(57 / (seen.view.scaled[0] / posed.HEIGHT) / height)
    assert 0.99 < min(factors) < 1.2
    assert 1.3 < max(factors) < 1.51


def test_row_50_targets_are_of_the_person_in_the_middle(recipe):
    task = load(recipe).pose
    both = [seen for seen in batch(recipe, 0, "pose.jitter=[2.5, 2.5]").seen if seen.sample in (1, 3)]
    assert sorted(seen.subject for seen in both) == [0, 0, 1, 1]
    for seen in both:
        wanted = pose.target(seen, task, 1)
        mine, other = (seen.objects.keypoints[n] for n in (seen.subject, 1 - seen.subject))
        alone = pose_targets.targets(mine, [], task.crop, task.radius)
        assert np.array_equal(wanted.disks, alone.disks)
        assert np.array_equal(wanted.x, alone.x)
        theirs = pose_targets.targets(other, [], task.crop, task.radius).disks
        assert theirs.any()
        assert np.array_equal(wanted.others, theirs & ~alone.disks)


@pytest.mark.parametrize("mirror", [False, True])
def test_row_50_points_lie_on_their_dots_and_mirrored_persons_swap_sides(recipe, mirror):
    sets = ("pose.crop=[177,129]", f"input.mirror={str(mirror).lower()}")
    swapped = [posed.NAMES.index(n.replace("left", "R").replace("right", "left").replace("R", "right"))
               for n in posed.NAMES]  # fmt: skip
    seen = [one for number in range(2) for one in batch(recipe, number, *sets).seen]
    assert {one.view.mirror for one in seen} == ({False, True} if mirror else {False})
    right = total = 0
    for one in seen:
        points = one.objects.keypoints[one.subject]
        assert one.objects.classes[one.subject] == 1
        for number, (x, y, visible) in enumerate(points):
            drawn = swapped[number] if one.view.mirror else number
            off = np.abs(one.pixels[int(y), int(x)].astype(int) - posed.colour(drawn)).max()
            right, total = right + (off < 40), total + 1
            assert visible == 2
    assert right / total > 0.75  # dots lie over one another


def test_row_50_losses_by_hand():
    """One crop of 1 x 3 pixels and two key points: the first at the left centre, the second of others."""
    task = tasks.Pose(radius=0.5, heatmaps=4.0, offsets=1.0, intermediate=2.0)
    mine = np.array([[0.5, 0.5, 2], [0, 0, 0]], np.float32)
    wanted = pose_targets.targets(mine, [np.array([[0, 0, 0], [2.5, 0.5, 2]], np.float32)], (1, 3), 0.5)
    logits = torch.tensor([[[[2.0, -1, 0]], [[0, 0, 3]]]])
    offsets = torch.zeros(1, 2, 2, 1, 3)
    offsets[0, 0, :, 0, 0] = torch.tensor([3.0, 4.0])  # wrong by 5 pixels: 4.5
    offsets[0, 0, :, 0, 1] = 9  # outside the disk
    found = pose_network.Maps(logits, offsets, logits)
    said = pose_network.losses(found, [wanted], task)

    def cost(logit):
        return math.log1p(math.exp(logit))

    first = cost(-2) + cost(-1) + cost(0)
    assert said["heatmaps"].item() == pytest.approx(4 * (first + 2 * cost(0) + cost(3)) / 6)
    assert said["intermediate"].item() == pytest.approx(2 * (first + 2 * cost(0)) / 6)
    assert said["offsets"].item() == pytest.approx(4.5 / 6)
    offsets[0, 0, :, 0, 0] = torch.tensor([0.6, 0.0])
    small = pose_network.losses(found, [wanted], task)["offsets"]
    assert small.item() == pytest.approx(0.6**2 / 2 / 6)
    assert "intermediate" not in pose_network.losses(
        found, [wanted], task.model_copy(update={"intermediate": 0.0})
    )


def test_row_50_exact_offsets_have_a_gradient_of_zero():
    wanted = pose_targets.targets(np.array([[0.5, 0.5, 2]], np.float32), [], (1, 1), 0.5)
    offsets = torch.zeros(1, 1, 2, 1, 1, requires_grad=True)
    zeros = torch.zeros(1, 1, 1, 1)
    pose_network.losses(pose_network.Maps(zeros, offsets, zeros), [wanted], tasks.Pose())[
        "offsets"
    ].backward()
    assert offsets.grad.tolist() == torch.zeros(1, 1, 2, 1, 1).tolist()


def test_row_50_maps_are_three_a_key_point_at_the_size_of_the_crop():
    network = pose_network.build(config.Model(output_stride=8), 17)
    images = torch.randn(2, 3, 57, 41)
    found = network.train()(images)
    shapes = [tuple(each.shape) for each in found]
    assert shapes == [(2, 17, 57, 41), (2, 17, 2, 57, 41), (2, 17, 57, 41)]
    assert network.eval()(images).intermediate.numel() == 0
    assert network.head.weight.shape[0] == 51
    ramp = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 6)
    assert pose_network._upsampled(ramp, (57, 41))[0, 0, ::8, 3].tolist() == pytest.approx(list(range(8)))


def test_row_50_poses_that_are_alike_are_suppressed_best_first():
    """Noses 5 pixels apart in a box of 100 x 100 have a likeness of 0.62985."""
    poses = np.zeros((3, 17, 3))
    poses[0, 0], poses[1, 0], poses[2, 0] = (50, 50, 1), (53, 54, 1), (90, 50, 1)
    boxes, scores = np.tile([0.0, 0, 100, 100], (3, 1)), np.array([0.3, 0.9, 0.5])
    assert oks.similarity(poses[1], poses[0], 1e4) == pytest.approx(0.62985, abs=5e-6)
    for likeness, kept in ((0.629, [0.9, 0.5]), (0.63, [0.9, 0.5, 0.3])):
        found = pose.records(7, 1, boxes, poses, scores, likeness)
        assert [each["score"] for each in found] == kept
    assert (found[0]["image_id"], found[0]["category_id"]) == (7, 2)
    assert found[0]["bbox"] == [0, 0, 100, 100]
    assert found[0]["keypoints"][:3] == [53, 54, 1]


def test_row_50_boxes_of_a_detector_are_suppressed_and_checked(tmp_path):
    def record(image, box, score, kind=2):
        return {"image_id": image, "category_id": kind, "bbox": box, "score": score}

    rows = [
        record(0, [0, 0, 10, 10], 0.5),
        record(0, [0, 0, 10, 9], 0.9),  # overlaps the first by 0.9
        record(0, [0, 0, 10, 5], 0.1),  # and that by 5 / 9
        record(2, [5, 6, 7, 8], 0.2),
        record(2, [5, 6, 7, 8], 0.8, kind=1),
    ]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(rows))
    found = people.given(file, 1, 3, 0.6)
    assert {sample: boxes.tolist() for sample, boxes in found.items()} == {
        0: [[0, 0, 10, 9], [0, 0, 10, 5]],
        2: [[5, 6, 12, 14]],
    }
    with pytest.raises(ResultsError, match="record 3: 'image_id': found 2"):
        people.given(file, 1, 2, 0.6)


def test_row_50_persons_are_found_in_the_boxes_of_a_file(recipe, tmp_path):
    boxes = [[-5, 10, 60, 95], [80, 15, 100, 90], [200, 0, 10, 10]]  # partly and wholly outside
    rows = [{"image_id": 1, "category_id": 2, "bbox": box, "score": 0.5} for box in boxes]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(rows))
    settings = load(recipe, f"pose.boxes={file}", "pose.oks=1.0")
    inputs = training.open_inputs(settings)
    task = training._task(settings, inputs.table, inputs.evaluated)
    task.model.eval()
    whole = batches.whole_pictures(inputs.data, np.arange(2), settings.input, task.wanted, pytest.fail)
    with torch.no_grad():
        none, some = (task.find(seen, torch.device("cpu")) for seen in whole)
    assert none == []
    assert sorted(each["bbox"] for each in some) == [[0, 10, 55, 95], [80, 15, 80, 90]]
    for each in some:
        points = np.array(each["keypoints"]).reshape(17, 3)
        assert (points[:, 2] == 1).all()
        assert ((points[:, :2] >= 0) & (points[:, :2] <= [posed.WIDTH, posed.HEIGHT])).all()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["model.output_stride=32"], "model.output_stride: found 32; a pose needs 8"),
        (["pose.crop=[353, 256]"], r"sides of 8 n \+ 1 pixels, found \[353, 256\]"),
        (["pose.jitter=[1.5, 1.0]"], "'jitter' is the least and the largest"),
        (["input.shorter=600"], "input.shorter: a pose is of persons"),
        (["data.empty=keep"], "data.empty: a pose trains on persons"),
        (["segmenter.classes=3"], "one section of detector, segmenter, pose"),
    ],
)
def test_what_a_pose_cannot_have_is_told(recipe, sets, message):
    with pytest.raises(ConfigError, match=message):
        load(recipe, *sets)


def test_boxes_need_pictures_to_be_evaluated(recipe, tmp_path):
    file = tmp_path / "pose.toml"
    file.write_text(recipe.read_text().replace("validation", "# validation"))
    with pytest.raises(ConfigError, match="whose persons they are of"):
        load(file, "pose.boxes=x.json")


def test_data_without_the_key_points_of_persons_is_refused(recipe, tmp_path):
    table = reader.table_of(open_data(load(recipe).data.train))
    dog, person = table.categories
    for categories in (
        [dog],
        [person, person],
        [person.model_copy(update={"keypoints": person.keypoints[:3]})],
    ):
        with pytest.raises(ConfigError, match="a pose needs one class with 17"):
            people.category(table.model_copy(update={"categories": tuple(categories)}))


def run_of(recipe, run, *sets):
    training.train(load(recipe, *sets), run)
    return run


@pytest.mark.slow
def test_row_50_a_run_learns_six_persons_by_heart(recipe, tmp_path):
    """Seven seconds of a core; others of a picture are found by their own boxes."""
    sets = ("train.steps=150", "input.mirror=false", "pose.jitter=[1.25, 1.25]", "train.checkpoint_every=150")
    found = posed.likenesses(run_of(recipe, tmp_path / "run", *sets))
    assert len(found) == 6
    assert min(found) > 0.9
    (file,) = (tmp_path / "run" / "evaluations").glob("*/metrics.json")
    assert json.loads(file.read_text())["metrics"]["AP50"] == pytest.approx(1)


@pytest.mark.slow
def test_row_50_a_run_goes_on_with_the_same_bits(recipe, tmp_path):
    whole = run_of(recipe, tmp_path / "whole")
    run_of(recipe, tmp_path / "parts", "train.steps=2")
    parts = run_of(recipe, tmp_path / "parts")
    assert '"event": "resume", "step": 2' in (parts / "log.jsonl").read_text()
    one, other = (checkpoint.load(next(checkpoint.whole(run))) for run in (whole, parts))
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_row_50_perfect_maps_of_real_persons_are_right(tmp_path):
    """Four photographs, persons of many sizes, some at the edge: through crops, votes and back."""
    images, file = PHOTOGRAPHS / "coco-sample/images", PHOTOGRAPHS / "coco-sample/person_keypoints.json"
    if not images.exists():
        pytest.skip(f"{images} is not there")
    words = ["data", "ingest", images, tmp_path / "data", "--annotations", file, "--workers", 1]
    assert CliRunner().invoke(main, [*map(str, words)]).exit_code == 0
    data = open_data(tmp_path / "data")
    samples, objects = people.trained_on(data, tasks.Pose())
    found = []
    for sample, number in zip(samples.tolist(), objects.tolist(), strict=True):
        (one,) = reader.objects(data, np.array([sample]), original=True)
        view = pose_targets.crop(one.boxes[number], one.size, one.size, (353, 257), 1.25)
        seen, kept = batches.views.objects(one, view)
        points = seen.keypoints[np.flatnonzero(kept == number)[0]]
        wanted = pose_targets.targets(points, [], (353, 257), 25.0)
        shape = wanted.disks.shape
        offsets = [np.broadcast_to(e, shape) for e in (wanted.x[:, None, :], wanted.y[:, :, None])]
        maps = wanted.disks.astype(np.float32), np.stack(offsets, axis=1)
        put, score = pose.read(*maps, view, one.size, 25.0)
        found += pose.records(sample, 0, one.boxes[[number]].astype(float), put[None], np.array([score]), 0.5)
    measured = coco.evaluate(truths.of_data(data, np.arange(data.samples)), found, "keypoints")
    assert len(found) == 12  # two more have no visible point
    assert measured.metrics["AP"] > 0.99
