"""DeepLab-ASPP-L as Sun et al. 2017 train it: branches, shapes, first weights, loss, schedule."""

import numpy as np
import pytest
import thin
import torch
import torch.nn.functional as F
from small_detectors import recipe

from hpcscale import config, tasks
from hpcscale.dense import deeplab, segmentation, training
from hpcscale.dense.batches import Seen
from hpcscale.dense.views import whole_view
from hpcscale.train.schedule import lr

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _thin():
    with thin.network():
        yield


def network(**keys):
    torch.manual_seed(0)
    model = config.Model(output_stride=8, zero_init_residual=False)
    return deeplab.build(tasks.Segmenter(**keys), model).eval()


def test_row_49_513_pixels_are_65_places_of_21_classes():
    found = network()
    with torch.no_grad():
        assert found(torch.zeros(1, 3, 513, 513)).shape == (1, 21, 65, 65)
    assert [(branch.dilation, branch.kernel_size) for branch in found.branches] == [
        ((rate, rate), (3, 3)) for rate in (6, 12, 18, 24)
    ]


def test_row_49_branches_are_added():
    """The scores are linear in the branches: those of each alone add up, and twice the weights are twice
    the scores."""
    found, pictures = network(), torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps, whole = found.body.maps(pictures), found(pictures)
        torch.testing.assert_close(whole, torch.stack([branch(maps) for branch in found.branches]).sum(0))
        for branch in found.branches:
            branch.weight *= 2
        torch.testing.assert_close(found(pictures), 2 * whole)


@pytest.mark.parametrize("rate", [6, 18])
def test_row_49_a_rate_is_a_kernel_stuffed_with_zeros(rate):
    found = network(rates=[rate])
    (branch,) = found.branches
    maps = torch.randn(1, branch.in_channels, 30, 33, generator=torch.Generator().manual_seed(1))
    stuffed = torch.zeros(*branch.weight.shape[:2], 2 * rate + 1, 2 * rate + 1)
    stuffed[:, :, ::rate, ::rate] = branch.weight.detach()
    with torch.no_grad():
        torch.testing.assert_close(
            branch(maps), F.conv2d(maps, stuffed, branch.bias, padding=rate), rtol=1e-4, atol=1e-4
        )


def test_row_49_branches_begin_as_xavier():
    for branch in network().branches:
        most = (6 / (9 * (branch.in_channels + branch.out_channels))) ** 0.5
        assert branch.weight.abs().max() <= most
        assert branch.weight.std().item() == pytest.approx(most / 3**0.5, rel=0.02)
        assert not branch.bias.any()


def test_row_49_rate_of_a_step():
    settings = recipe("sun2017_deeplab")
    last = settings.train.steps
    assert lr(settings.schedule, 0, last) == 1e-3
    assert lr(settings.schedule, last // 2, last) == pytest.approx(1e-3 * 0.5**0.9)
    assert lr(settings.schedule, last, last) == 0


def test_row_49_the_loss_leaves_255_out_and_reads_the_nearest_value():
    settings = recipe("sun2017_deeplab", "model.name=resnet50", "input.square=33")
    torch.manual_seed(0)
    task = training.Task(*segmentation.build(settings, settings.segmenter))
    task.model.eval()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (33, 33, 3), np.uint8)
    places = rng.integers(0, 21, (5, 5))  # one value for each place of the scores
    places[1:] = 255
    maps = np.kron(places, np.ones((7, 7)))[1:-1, 1:-1].astype(np.uint8)
    view = whole_view((33, 33), settings.input)
    with torch.no_grad():
        found = task.losses([Seen(0, pixels, view, (33, 33), None, None, maps)], CPU)["softmax"]
        values = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        scores = task.model(values)
    wanted = F.cross_entropy(scores[0, :, 0].T, torch.from_numpy(places[0]))
    torch.testing.assert_close(found, wanted)
