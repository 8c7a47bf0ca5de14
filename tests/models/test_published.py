"""Files of others through model.init: BiT's .npz, timm's, WSL-Images; their logits, and what is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference import bit as bit_oracle
from reference import resnet as resnet_oracle
from safetensors.torch import save_file
from torch import Tensor

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.models import networks, surgery, weights
from hpcscale.models.preprocessing import DEVIATIONS, MEANS
from hpcscale.models.weights import WeightsError
from hpcscale.view import Values

CLASSES = 10
R50 = (3, 4, 6, 3)


def seen(values: Values = "signed", stride: str = "3x3") -> dict[str, Any]:
    """What a run states of itself."""
    return {
        "names": "a", "classes": "b",
        "preprocessing": {
            "method": "square", "size": 40, "crop": 40, "channels": "RGB",
            "mean": MEANS[values], "std": DEVIATIONS[values], "stride": stride,
        },
    }  # fmt: skip


def begun(
    file: Path, mine: dict[str, Any] | None = None, **keys: Any
) -> tuple[networks.Network, dict[str, Any]]:
    """A network that starts from the file, and its report."""
    torch.manual_seed(0)
    settings = config.Model(**({"name": "bit_r50x1", "init": file, "head": "keep"} | keys))
    model = networks.build(settings, CLASSES)
    return model.eval(), surgery.put(model, settings, weights.read(file), mine or seen())


def logits_of(model: networks.Network, images: NDArray[Any]) -> NDArray[Any]:
    """images (n, h, w, 3)."""
    with torch.inference_mode():
        found: NDArray[Any] = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    return found


@pytest.fixture(scope="module")
def arrays() -> dict[str, NDArray[Any]]:
    """A BiT R50x1 under the published names."""
    draw = np.random.default_rng(0)
    return {
        name: draw.normal(float(name.endswith("gamma")), 0.2, shape).astype(np.float32)
        for name, shape in bit_oracle.shapes(R50, 1, CLASSES)
    }


@pytest.fixture(scope="module")
def images() -> NDArray[Any]:
    return np.random.default_rng(1).normal(size=(2, 40, 40, 3)).astype(np.float32)


def test_row_14_a_published_file_gives_the_logits_of_the_formulas(
    arrays: dict[str, NDArray[Any]], images: NDArray[Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "BiT-M-R50x1.npz", **arrays, global_step=np.int64(3))
    model, report = begun(tmp_path / "BiT-M-R50x1.npz")
    np.testing.assert_allclose(
        logits_of(model, images), bit_oracle.logits(arrays, images), rtol=1e-4, atol=1e-4
    )
    assert (report["taken"], report["left"], report["missing"]) == (len(arrays), ["global_step"], [])
    assert report["notes"] == [
        "it does not say its classes; they must be those of the vocabulary, in its order"
    ]


def test_row_14_a_file_of_timm_gives_the_same_logits(
    arrays: dict[str, NDArray[Any]], images: NDArray[Any], tmp_path: Path
) -> None:
    names = bit_oracle.timm_names(R50)
    assert names.keys() == arrays.keys()
    tensors = {
        there: torch.from_numpy(
            arrays[name].transpose(3, 2, 0, 1).copy() if "kernel" in name else arrays[name].ravel()
        )
        for name, there in names.items()
    }
    save_file(tensors, tmp_path / "resnetv2_50x1_bit.safetensors")
    torch.save({"state_dict": tensors}, tmp_path / "resnetv2_50x1_bit.pth")
    wanted = bit_oracle.logits(arrays, images)
    for ending in ("safetensors", "pth"):
        model, report = begun(tmp_path / f"resnetv2_50x1_bit.{ending}")
        np.testing.assert_allclose(logits_of(model, images), wanted, rtol=1e-4, atol=1e-4)
        assert (report["left"], report["missing"]) == ([], [])


def test_row_14_a_new_head_leaves_the_published_one(arrays: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, **{name: array for name, array in arrays.items() if "block4/unit03/c" not in name})
    model, report = begun(file, head="new")
    assert report["left"] == ["fc.bias", "fc.weight"]
    assert report["missing"] == [f"layer4.2.{each}" for each in ("gn3.weight", "gn3.bias", "conv3.weight")]
    assert not model.classifier.weight.any()


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (seen("imagenet"), r"was trained with mean \[127.5, 127.5, 127.5\], the recipe says \[123.675"),
        (seen(stride="1x1"), "was trained with stride 3x3, the recipe says 1x1"),
    ],
)
def test_row_14_what_published_weights_need_is_known(
    arrays: dict[str, NDArray[Any]], tmp_path: Path, mine: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        begun(tmp_path / "a.npz", mine)


def test_other_networks_of_version_2_are_refused(tmp_path: Path) -> None:
    names = dict.fromkeys(bit_oracle.timm_names(R50).values(), torch.zeros(1))
    torch.save(names | {"stages.0.blocks.0.norm1.running_mean": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: stages.0.blocks.0.norm1.running_mean: .* is not BiT"):
        begun(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet/head/conv2d/kernel", (2048, 10), r"its shape is \(2048, 10\); a kernel has four axes"),
        ("resnet/head/conv2d/kernel", (3, 3, 8, 10), r"window is \(3, 3\); the head of BiT is a 1x1"),
        (
            "resnet/root_block/standardized_conv2d/kernel",
            (7, 7, 4, 64),
            r"conv1.weight is \(64, 4, 7, 7\) there",
        ),
        (
            "resnet/block5/unit01/a/group_norm/gamma",
            (64,),
            "nothing in it fits bit_r50x1: it holds resnet/block5",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    np.savez(tmp_path / "a.npz", **{name: np.zeros(shape, np.float32)})
    with pytest.raises(WeightsError, match=message):
        begun(tmp_path / "a.npz", head="new")


@pytest.mark.parametrize("values", [np.array(["x"]), np.array([{}], object)])
def test_arrays_of_other_things_are_told(tmp_path: Path, values: NDArray[Any]) -> None:
    np.savez(tmp_path / "a.npz", a=values)
    with pytest.raises(WeightsError, match=r"a\.npz: cannot be read"):
        weights.read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "blocks", "width", "groups"),
    [("resnet50", R50, 64, 1), ("resnext101_32x4d", (3, 4, 23, 3), 4, 32)],
    ids=["row_12", "row_13"],
)
def test_row_12_a_file_of_torchvision_gives_the_logits_of_the_formulas(
    tmp_path: Path, images: NDArray[Any], name: str, blocks: tuple[int, ...], width: int, groups: int
) -> None:
    """Of row 13 too."""
    tensors = resnet_oracle.drawn(blocks, width, groups, CLASSES)
    torch.save(tensors, tmp_path / "a.pth")
    model, report = begun(tmp_path / "a.pth", name=name)
    wanted = resnet_oracle.logits(tensors, groups, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert wanted.std() > 1e-2
    np.testing.assert_allclose(logits_of(model, images), wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert (report["taken"], report["left"], report["missing"]) == (len(tensors), [], [])
    assert report["notes"][0].startswith("it does not say how its pictures were prepared; here: channels RGB")


@pytest.mark.parametrize("width", [8, 16, 32, 48])
def test_row_13_names_and_shapes_of_wsl_images_are_ours(tmp_path: Path, width: int) -> None:
    """ig_resnext101_32x8 to 32x48; the file holds one number that stands for all."""
    shapes = dict(resnet_oracle.shapes((3, 4, 23, 3), width, 32, 1000))
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, tmp_path / "ig.pth")
    given: dict[str, Tensor] = weights.read(tmp_path / "ig.pth").tensors
    with torch.device("meta"):
        own = networks.build(
            config.Model.model_validate({"name": f"resnext101_32x{width}d"}), 1000
        ).state_dict()
    assert {name: value.shape for name, value in given.items()} == {
        name: value.shape for name, value in own.items()
    }
