"""Objects as columns of a shard and back, bit for bit; objects of a picture at another size."""

import numpy as np
import pytest

from hpcscale.annotations.objects import Mask, Objects, Rle, columns_of, decode, encode, no_objects, scale


def drawn(seed: int, k: int, points: int) -> Objects:
    """Any numbers at all, with every kind of mask."""
    draw = np.random.default_rng(seed)
    kinds: list[Mask] = [
        None,
        [draw.normal(size=(3, 2)), draw.normal(size=(5, 2)) * 1e300],
        Rle(np.array([0, 7, 1193]), (30, 40)),
        [draw.normal(size=(4, 2))],
    ]
    return Objects(
        (30, 40),
        True,
        draw.normal(size=(k, 4)).astype(np.float32),
        draw.integers(0, 90, k),
        draw.integers(0, 32, k),
        draw.integers(-(1 << 63), (1 << 63) - 1, k),
        draw.normal(size=k),
        [kinds[number % 4] for number in range(k)],
        draw.normal(size=(k, points, 3)).astype(np.float32),
    )


def same(one: Objects, other: Objects) -> bool:
    for a, b in zip(one, other, strict=True):
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes()
        elif a is not one.masks:
            assert a == b
    for a, b in zip(one.masks, other.masks, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Rle):
            assert (a.size, a.counts.tolist()) == (b.size, b.counts.tolist())
        else:
            assert [x.tobytes() for x in a or ()] == [x.tobytes() for x in b or ()]
    return True


@pytest.mark.parametrize("points", [0, 3])
@pytest.mark.parametrize("k", [0, 1, 2, 3, 9])
def test_columns_give_back_the_same_bits(k: int, points: int) -> None:
    objects = drawn(k, k, points) if k else no_objects((30, 40), points, listed=True)
    columns = encode(objects)
    dtypes = columns_of(["coco"], points)
    assert all(columns[name].dtype == dtype for name, dtype in dtypes.items() if name in columns)
    assert same(decode(columns, points), objects)


def test_columns_that_a_kind_of_source_has_not() -> None:
    assert list(columns_of(["voc"], 0)) == ["original", "boxes", "objects", "faults"]
    assert list(columns_of(["maps"], 0)) == ["original", "class_map", "faults"]
    assert "keypoints" not in columns_of(["coco", "maps"], 0)
    found = decode({name: encode(drawn(1, 2, 0))[name] for name in ("original", "boxes", "objects")}, 0)
    assert (found.masks, np.isnan(found.areas).all(), found.keypoints.shape) == (
        [None, None],
        True,
        (2, 0, 3),
    )


def test_another_size_of_the_picture() -> None:
    objects = drawn(2, 4, 2)
    found = scale(objects, (60, 20))  # twice as high, half as wide
    assert found.size == (60, 20)
    assert found.boxes.tolist() == (objects.boxes * np.array([0.5, 2, 0.5, 2], np.float32)).tolist()
    assert found.areas.tolist() == objects.areas.tolist()
    assert found.keypoints[:, :, 2].tolist() == objects.keypoints[:, :, 2].tolist()
    assert np.allclose(found.keypoints[:, :, :2], objects.keypoints[:, :, :2] * [0.5, 2])
    before, after = objects.masks[3], found.masks[3]
    assert isinstance(before, list)
    assert isinstance(after, list)
    assert (after[0] == before[0] * [0.5, 2]).all()
    assert found.masks[2] == objects.masks[2]
    assert same(scale(objects, objects.size), objects)
