"""A network that starts from other weights: the head, what is left and missing, freezing, what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.data import same
from hpcscale.models import networks, surgery
from hpcscale.models.backbone import Network
from hpcscale.models.weights import Weights, WeightsError

SEEN = {"size": 40, "crop": 32, "channels": "RGB", "mean": [127.5] * 3, "std": [127.5] * 3, "stride": "3x3"}
CLASSES = ("apple", "pear", "dog")
MINE = {"preprocessing": SEEN, "names": same.names(CLASSES), "classes": "abc"}


def settings(**keys: Any) -> config.Model:
    return config.Model(**({"init": Path("x.pth")} | keys))


def network(outputs: int = 3, seed: int = 0, **keys: Any) -> Network:
    torch.manual_seed(seed)
    return networks.build(settings(**keys), outputs)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def source() -> dict[str, Tensor]:
    """Weights of another network of three classes, with running averages of its own."""
    torch.manual_seed(1)
    return {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in network(seed=1).state_dict().items()
    }


def given(tensors: dict[str, Tensor], **stated: Any) -> Weights:
    return Weights(Path("x.pth"), "f" * 64, tensors, {"preprocessing": SEEN} | stated)


def test_row_16_only_the_classifier_differs(source: dict[str, Tensor]) -> None:
    """A network of five classes takes all of one of three, running averages too, but for its classifier."""
    model = network(5)
    fresh = copied(model)
    report = surgery.put(model, settings(), given(source), MINE)
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name] if name in surgery.HEAD else source[name]), name
    assert report["left"] == ["fc.bias", "fc.weight"]
    assert report["missing"] == report["notes"] == []
    assert report["taken"] == len(source) - 2
    assert surgery.lines(report) == [
        "model.init: x.pth: 318 tensors taken; classifier fresh",
        "model.init: left: fc.bias, fc.weight",
    ]


def test_row_16_a_kept_classifier_gives_the_same_logits(source: dict[str, Tensor]) -> None:
    model, other = network(), network(seed=1)
    other.load_state_dict(source)
    surgery.put(model, settings(head="keep"), given(source, names=MINE["names"]), MINE)
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(pictures), other.eval()(pictures))


def test_row_16_a_head_of_zero_starts_at_the_loss_of_a_guess(tmp_path: Path) -> None:
    """Zero weights: a softmax over L classes begins at ln L. The rest is as it was."""
    model = network(7, head="zero", init=None)
    fresh = copied(model)
    assert surgery.begin(model, settings(head="zero", init=None), tmp_path, MINE) is None
    logits = model(torch.randn(2, 3, 32, 32))
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 6]))
    assert loss.item() == pytest.approx(math.log(7))
    changed = [name for name, value in model.state_dict().items() if name in dict(model.named_parameters())
               and not torch.equal(value, fresh[name])]  # fmt: skip
    assert changed == ["fc.weight"]


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        ({"names": same.names(("pear", "apple", "dog"))}, "other classes than this run, or another order"),
        ({"classes": "abd"}, "other classes than this run"),
        ({"classes": "abc"}, None),  # a checkpoint of an earlier version
    ],
)
def test_a_kept_classifier_needs_the_same_classes(
    source: dict[str, Tensor], stated: dict[str, str], error: str | None
) -> None:
    model = network()
    if error is None:
        assert surgery.put(model, settings(head="keep"), given(source, **stated), MINE)["notes"] == []
        return
    before = copied(model)
    with pytest.raises(ConfigError, match=error):
        surgery.put(model, settings(head="keep"), given(source, **stated), MINE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_shapes_are_refused_by_name(source: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError) as caught:
        surgery.put(network(), settings(), given(source | {"conv1.weight": torch.zeros(64, 3, 3, 3)}), MINE)
    assert str(caught.value) == (
        "x.pth: does not fit resnet50: conv1.weight is (64, 3, 3, 3) there, (64, 3, 7, 7) here"
    )
    with pytest.raises(WeightsError, match=r"fc.weight is \(3, 2048\) there, \(5, 2048\) here.*head = 'new'"):
        surgery.put(network(5), settings(head="keep"), given(source), MINE)


def test_what_is_left_and_missing_is_reported(source: dict[str, Tensor]) -> None:
    part = {name: value for name, value in source.items() if not name.startswith(("layer4.2", "fc"))}
    part = {name: value for name, value in part.items() if not name.endswith("num_batches_tracked")}
    report = surgery.put(network(), settings(), given(part | {"rpn.weight": torch.zeros(1)}), MINE)
    assert report["left"] == ["rpn.weight"]
    assert len(report["missing"]) == 3 * 5
    assert report["missing"][0] == "layer4.2.conv1.weight"
    assert surgery.lines(report)[2].endswith("layer4.2.bn1.running_var and 10 more")
    with pytest.raises(WeightsError, match=r"model.head is 'keep', but it holds no fc.weight and fc.bias"):
        surgery.put(network(), settings(head="keep"), given(part), MINE)


def test_where_nothing_fits_nothing_is_done(source: dict[str, Tensor]) -> None:
    with pytest.raises(
        WeightsError, match=r"nothing in it fits resnet50: it holds encoder.weight, not conv1"
    ):
        surgery.put(network(), settings(), given({"encoder.weight": torch.zeros(2)}), MINE)
    with pytest.raises(WeightsError, match=r"bn1.bias is not finite"):
        surgery.put(network(), settings(), given(source | {"bn1.bias": torch.full((64,), math.nan)}), MINE)


def test_other_preprocessing_is_refused_or_told(source: dict[str, Tensor]) -> None:
    other = {"mean": [123.675, 116.28, 103.53]}
    with pytest.raises(ConfigError, match=r"x.pth was trained with mean \[123.675, .*the recipe says \[127"):
        surgery.put(network(), settings(), given(source, preprocessing=SEEN | other), MINE)
    with pytest.raises(ConfigError, match="was trained with stride 1x1, the recipe says 3x3"):
        surgery.put(network(), settings(), given(source, preprocessing=SEEN | {"stride": "1x1"}), MINE)
    told = surgery.put(network(), settings(), given(source, preprocessing=SEEN | {"crop": 224}), MINE)
    assert told["notes"] == ["it was trained with crop 224, here 32"]
    nothing = surgery.put(network(), settings(head="keep"), Weights(Path("x.pth"), "", source, {}), MINE)
    assert nothing["notes"][0].startswith(
        "it does not say how its pictures were prepared; here: channels RGB"
    )
    assert nothing["notes"][1].startswith("it does not say its classes; they must be those")
    assert surgery.lines(nothing)[-1] == f"model.init: {nothing['notes'][1]}"


def test_what_is_frozen_is_neither_trained_nor_in_training_mode() -> None:
    model = network(init=None).train()
    surgery.freeze(model, settings(freeze=("conv1", "bn1", "layer1", "layer2.0.bn1")))
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters()
        if name.startswith(("conv1.", "bn1.", "layer1.", "layer2.0.bn1."))
    }  # fmt: skip
    assert not model.layer1[0].bn1.training  # type: ignore[index,union-attr]
    assert model.layer2[0].bn2.training  # type: ignore[index,union-attr]
    with networks.evaluating(model):
        pass
    assert not model.bn1.training  # type: ignore[union-attr]
    assert model.training


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        (("layer",), "no parameter is 'layer' or below it; near: layer4, layer3, layer2"),
        (("layer1.0.conv9",), "near: layer1.0.conv3"),
        (("xyz",), "near: conv1, bn1, layer1, layer2, layer3, layer4, fc"),
        (("",), "no parameter is ''"),
        (("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"), "leaves nothing to train"),
    ],
)
def test_a_wrong_part_to_freeze_is_told(prefixes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        surgery.freeze(network(init=None), settings(freeze=prefixes))


def test_a_divided_classifier_is_not_trained_alone() -> None:
    body = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    with pytest.raises(ConfigError, match=r"leaves only the classifier to train, and model.slices = 'ranks'"):
        surgery.freeze(network(init=None), settings(freeze=body, slices="ranks"))
    surgery.freeze(network(init=None), settings(freeze=body))


def test_a_classifier_is_kept_only_of_something() -> None:
    with pytest.raises(ValueError, match="head = 'keep' needs the key 'init'"):
        config.Model(head="keep")
