"""Mask R-CNN and Keypoint R-CNN over a feature pyramid, as Mahajan et al. 2018 train them."""

import math

import pytest
import thin
import torch
from small_detectors import of_recipe, recorded, seen

from hpcscale.dense.ops import torchvision

heads = torchvision.models.detection.roi_heads
BOXES = [[8.0, 16, 64, 100], [60, 30, 116, 114]]
SURE = 50.0  # a logit that leaves no doubt


@pytest.fixture(scope="module", autouse=True)
def _thin():
    with thin.network():
        yield


@pytest.fixture(scope="module")
def masks(_thin):
    return of_recipe("mahajan2018_mask_rcnn")


@pytest.fixture(scope="module")
def points(_thin):
    return of_recipe("mahajan2018_keypoint_rcnn")


def test_row_51_rois_are_read_from_the_level_of_their_size(masks):
    """k = floor(4 + log2(sqrt(w h) / 224)), from 2 to 5 (Lin et al. 2017, FPN, equation 1)."""
    maps = {str(n): torch.full((1, 1, 256 >> n, 256 >> n), n + 2.0) for n in range(4)}
    maps["pool"] = torch.full((1, 1, 16, 16), 6.0)
    sides = [(8, 8), (111, 111), (112, 112), (56, 223), (56, 225), (223, 223), (224, 224), (100, 600),
             (447, 447), (448, 448), (1024, 1024)]  # fmt: skip
    rois = torch.tensor([[0.0, 0, width, height] for width, height in sides])
    wanted = [min(5, max(2, math.floor(4 + math.log2(math.sqrt(w * h) / 224)))) for w, h in sides]
    assert wanted == [2, 2, 3, 2, 3, 3, 4, 4, 4, 5, 5]
    for pool, bins in ((masks.model.roi_heads.box_roi_pool, 7), (masks.model.roi_heads.mask_roi_pool, 14)):
        found = pool(maps, [rois], [(1024, 1024)])
        assert found.shape == (len(sides), 1, bins, bins)
        assert found[:, 0, bins // 2, bins // 2].tolist() == pytest.approx(wanted)


def test_row_51_levels_have_strides_4_to_64_and_one_side_of_anchors_each(masks):
    maps = masks.model.backbone(torch.zeros(1, 3, 128, 64))
    assert [tuple(level.shape[2:]) for level in maps.values()] == [(128 >> n, 64 >> n) for n in range(2, 7)]
    assert {level.shape[1] for level in maps.values()} == {256}
    images = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, 128, 64), [(128, 64)])
    (found,) = masks.model.rpn.anchor_generator(images, list(maps.values()))
    starts = [sum(3 * (128 >> n) * (64 >> n) for n in range(2, level)) for level in range(2, 7)]
    assert len(found) == sum(3 * (128 >> n) * (64 >> n) for n in range(2, 7))
    for side, start in zip((32, 64, 128, 256, 512), starts, strict=True):
        assert found[start + 1].tolist() == [-side / 2, -side / 2, side / 2, side / 2]  # the square one


def test_row_51_256_anchors_and_512_proposals(masks):
    labels = torch.cat([torch.ones(1000), torch.zeros(5000)])
    for sampler, objects, background in (
        (masks.model.rpn.fg_bg_sampler, 128, 128),
        (masks.model.roi_heads.fg_bg_sampler, 128, 384),
    ):
        found = sampler([labels])
        assert [int(part[0].sum()) for part in found] == [objects, background]


def test_row_51_root_and_first_stage_are_frozen_and_normalisations_affine(masks):
    for name, parameter in masks.model.backbone.body.named_parameters():
        frozen = name.startswith(("conv1", "layer1")) or "bn" in name or "downsample.1" in name
        assert parameter.requires_grad == (not frozen), name


def test_row_51_masks_of_28_come_back_where_they_were(masks):
    """Half of each object, cut to a box, drawn back into the picture."""
    truth = torch.zeros(2, 128, 128)
    truth[0, 16:100, 8:36], truth[1, 30:72, 60:116] = 1, 1
    boxes, rows = torch.tensor(BOXES), torch.arange(2)
    cut = heads.project_masks_on_boxes(truth, boxes, rows, 28)
    assert cut.shape == (2, 28, 28)
    back = heads.paste_masks_in_image(cut[:, None], boxes, (128, 128))[:, 0] >= 0.5
    both, either = (back & (truth > 0)).sum((1, 2)), (back | (truth > 0)).sum((1, 2))
    assert (both / either > 0.95).all()
    with recorded(masks.model.roi_heads.mask_predictor, lambda _, output: tuple(output.shape[1:])) as shapes:
        masks.losses([seen(BOXES, [0, 1])], torch.device("cpu"))
    assert shapes == [(3, 28, 28)]


def test_row_51_perfect_predictions_cost_nothing(masks):
    """Of classes, boxes and masks; and where the mask of another class is right, the loss is large."""
    truth = torch.zeros(2, 128, 128)
    truth[0, 16:100, 8:36], truth[1, 30:72, 60:116] = 1, 1
    boxes, labels, rows = torch.tensor(BOXES), torch.tensor([1, 2]), torch.arange(2)
    cut = heads.project_masks_on_boxes(truth, boxes, rows, 28)
    logits = torch.full((2, 3, 28, 28), -SURE)
    logits[rows, labels] = torch.logit(cut, 1e-6)
    doubt = torch.special.entr(cut) + torch.special.entr(1 - cut)  # of bins that are partly inside
    assert 0 < doubt.mean() < 0.03
    loss = heads.maskrcnn_loss(logits, [boxes], [truth], [labels], [rows])
    torch.testing.assert_close(loss, doubt.mean(), rtol=0, atol=1e-4)
    assert heads.maskrcnn_loss(logits.roll(1, 1), [boxes], [truth], [labels], [rows]) > 1
    rois = boxes + torch.tensor([2.0, -3, 4, 5])
    codes = masks.model.roi_heads.box_coder.encode([boxes], [rois])
    moves = torch.zeros(2, 3, 4)
    moves[rows, labels] = codes[0]
    scores = torch.nn.functional.one_hot(labels, 3) * SURE
    classes, places = heads.fastrcnn_loss(scores, moves.flatten(1), [labels], codes)
    assert classes + places < 1e-6
    assert heads.fastrcnn_loss(scores, moves.flatten(1) + 1, [labels], codes)[1] > 1


def test_row_52_17_heat_maps_of_56(points):
    predictor = points.model.roi_heads.keypoint_predictor
    with recorded(predictor, lambda _, output: tuple(output.shape[1:])) as shapes:
        losses = points.losses([seen(BOXES, [1, 1])], torch.device("cpu"))
    assert shapes == [(17, 56, 56)]
    assert losses["loss_keypoint"].item() == pytest.approx(2 * math.log(56), rel=0.1)  # all places alike
    convolutions = [
        each for each in points.model.roi_heads.keypoint_head if isinstance(each, torch.nn.Conv2d)
    ]
    assert [each.out_channels for each in convolutions] == [512] * 8


def test_row_52_perfect_heat_maps_cost_nothing_and_give_the_points_back():
    boxes, rows = torch.tensor(BOXES), torch.arange(2)
    shares = torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    places = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
    truth = torch.cat([places, torch.full((2, 17, 1), 2.0)], dim=2)
    truth[0, 3, 2] = 0  # absent: its heat map says nothing
    bins, counted = heads.keypoints_to_heatmap(truth, boxes, 56)
    assert counted.sum() == 33
    maps = torch.nn.functional.one_hot(bins, 56 * 56).float().reshape(2, 17, 56, 56) * SURE
    maps[0, 3] = 0
    assert heads.keypointrcnn_loss(maps, [boxes], [truth], [rows]) < 1e-6
    assert heads.keypointrcnn_loss(maps.roll(1, 3), [boxes], [truth], [rows]) > 10
    found, _ = heads.heatmaps_to_keypoints(maps, boxes)
    bin_ = (boxes[:, 2:] - boxes[:, :2]) / 56
    off = (found[..., :2] - places).abs() / bin_[:, None]
    assert off[counted.bool()].max() <= 1.0
