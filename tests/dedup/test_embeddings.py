"""dedup embed and search among embeddings: regions, pooling, files, equality with brute force."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcscale import config
from hpcscale.cli import main
from hpcscale.data.codes import Codes, read_codes, write_codes
from hpcscale.data.manifest import DataError
from hpcscale.data.store import open_data
from hpcscale.dedup import cosine, embeddings
from hpcscale.dedup.embeddings import embed_source, pool, regions
from hpcscale.dedup.hashes import OptionError
from hpcscale.dedup.search import Near, SearchError, search
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.ingest.sources import SourceError
from hpcscale.models import checkpoint, resnet

CROP = 64


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        *[(7, 7, 14), (24, 32, 20), (7, 10, 20), (10, 7, 20), (16, 40, 32)],
        # An overlap of 0.4 puts one more square along a side of 1.8 times the other, 0.39 or 0.41 elsewhere.
        *[(100, 179, 20), (100, 181, 26), (179, 100, 20), (181, 100, 26)],
    ],
)
def test_row_33_counts_of_regions(height: int, width: int, count: int) -> None:
    """The counts of Tolias et al.'s grid; squares lie within the map, and its corners are covered."""
    found = regions(height, width)
    assert len(found) == count
    assert {side for *_, side in found} == {2 * min(height, width) // (level + 1) for level in (1, 2, 3)}
    covered = np.zeros((height, width), bool)
    for top, left, side in found:
        assert 0 <= top <= height - side
        assert 0 <= left <= width - side
        covered[top : top + side, left : left + side] = True
    assert covered.all()


def grid(height: int, width: int) -> list[tuple[int, int, int]]:
    """Tolias et al.'s regions by centres and floating point, as their code finds them."""
    w = min(height, width)
    steps = np.arange(2, 8)
    b = (max(height, width) - w) / (steps - 1)
    best = int(np.argmin(np.abs((w**2 - w * b) / w**2 - 0.4)))
    more_down, more_across = (best + 1 if height > width else 0), (best + 1 if width > height else 0)
    found = []
    for level in (1, 2, 3):
        side = int(np.floor(2 * w / (level + 1)))
        half = np.floor(side / 2 - 1)
        across = (width - side) / (level + more_across - 1) if level + more_across > 1 else 0
        down = (height - side) / (level + more_down - 1) if level + more_down > 1 else 0
        lefts = np.floor(half + np.arange(level + more_across) * across) - half
        tops = np.floor(half + np.arange(level + more_down) * down) - half
        found += [(int(top), int(left), side) for top in tops for left in lefts]
    return found


@pytest.mark.parametrize(
    "shape", [(2, 2), (7, 7), (7, 10), (10, 7), (12, 16), (16, 40), (100, 179), (100, 181), (181, 100)]
)
def test_row_33_rmac_is_what_its_definition_says(shape: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).gamma(1, 1, (3, 5, *shape)).astype(np.float32)
    expected = np.zeros((3, 5))
    for top, left, side in grid(*shape):
        vector = maps[:, :, top : top + side, left : left + side].max((2, 3)).astype(np.float64)
        expected += vector / np.linalg.norm(vector, axis=1, keepdims=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(torch.from_numpy(maps), "rmac").numpy(), expected, atol=1e-6)
    mean = maps.mean((2, 3))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(torch.from_numpy(maps), "mean").numpy(), mean, atol=1e-6)


def test_maps_of_one_cell_and_of_nothing() -> None:
    assert set(regions(1, 1)) == {(0, 0, 1)}
    assert not pool(torch.zeros(2, 5, 2, 2), "rmac").any()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights, and a data set with a picture twice."""
    folder = tmp_path_factory.mktemp("embed")
    (folder / "pictures" / "tag").mkdir(parents=True)
    for number in range(7):
        coarse = np.random.default_rng(number % 6).integers(0, 256, (5, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC)
        image.save(folder / "pictures" / "tag" / f"{number}.jpg", quality=95)
    ingest(folder / "pictures", folder / "data", packing=Packing(72))
    torch.manual_seed(0)
    (folder / "run").mkdir()
    settings = {
        "data": {"train": "x", "vocabulary": "y"},
        "input": {"crop": CROP},
        "model": {"name": "resnet50"},
        "loss": {"name": "softmax"},
        "optimizer": {"name": "sgd"},
        "schedule": {"name": "constant", "lr": 0.1},
        "train": {"steps": 10, "batch": 2, "device": "cpu"},
    }
    (folder / "run" / "config.json").write_text(json.dumps(settings))
    model = resnet.build(config.read(folder / "run" / "config.json").model, 3)
    checkpoint.save(folder / "run", 5, model.state_dict(), {}, {}, 3)
    return folder


def test_embed_and_search_by_the_command_line(place: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "e.h5"
    arguments = [
        "dedup",
        "embed",
        str(place / "data"),
        str(out),
        "--checkpoint",
        str(place / "run"),
        "--batch",
        "4",
    ]
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0, run.output
    found = read_codes(out)
    assert (found.method, found.codes.dtype, found.codes.shape) == ("rmac", np.float32, (7, 2048))
    assert list(found.names) == [f"tag/{number}.jpg" for number in range(7)]
    data = open_data(place / "data")
    np.testing.assert_array_equal(found.digests, data.source_digests(np.arange(data.samples)))
    np.testing.assert_allclose(np.linalg.norm(found.codes, axis=1), 1, atol=1e-6)
    stated = json.loads((place / "run" / "checkpoints" / "step-00000005.json").read_text())
    assert found.checkpoint == stated["sha256"]
    run = CliRunner().invoke(main, ["dedup", "search", str(out), "--cosine", "0.999999"])
    assert run.stdout == "tag/0.jpg\ttag/6.jpg\t0.000000\n"
    # Resumed after parts, and from the file of the checkpoint: the same content.
    monkeypatch.setattr(embeddings, "PART_ROWS", 4)
    file = place / "run" / "checkpoints" / "step-00000005.safetensors"
    again = tmp_path / "again.h5"
    calls = []
    write = embeddings.write_codes

    def failing(part: Path, codes: Codes) -> None:
        calls.append(part.name)
        if len(calls) == 2:
            raise OSError("disk full")
        write(part, codes)

    monkeypatch.setattr(embeddings, "write_codes", failing)
    with pytest.raises(OSError, match="disk full"):
        embed_source(place / "data", again, file, batch=4)
    assert not again.exists()
    resumed = embed_source(place / "data", again, file, batch=4)
    assert calls == ["00000.h5", "00001.h5", "00001.h5"]
    np.testing.assert_allclose(resumed.codes, found.codes, atol=1e-5)
    assert not (tmp_path / "again.h5.parts").exists()


def test_other_pictures_of_the_same_names_are_not_the_same(place: Path, tmp_path: Path) -> None:
    """A finished file, and a part, of one data set are refused for the other."""
    (tmp_path / "pictures" / "tag").mkdir(parents=True)
    for number in range(7):
        Image.new("RGB", (90, 80), (9 * number, 0, 0)).save(tmp_path / "pictures" / "tag" / f"{number}.jpg")
    ingest(tmp_path / "pictures", tmp_path / "data", packing=Packing(72), workers=1)
    out = tmp_path / "out.h5"
    embed_source(place / "data", out, place / "run")
    with pytest.raises(OptionError, match=r"out\.h5: source was .*other pictures"):
        embed_source(tmp_path / "data", out, place / "run")
    shutil.copytree(place / "data", tmp_path / "copy")
    assert len(embed_source(tmp_path / "copy", out, place / "run").names) == 7


def test_what_embed_refuses(place: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="data ingest"):
        embed_source(place / "pictures", tmp_path / "out.h5", place / "run")
    broken = shutil.copytree(place / "run", tmp_path / "run")
    file = broken / "checkpoints" / "step-00000005.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="step-00000005"):
        embed_source(place / "data", tmp_path / "out.h5", file)
    with pytest.raises(checkpoint.CheckpointError, match="none of the checkpoints there is whole"):
        embed_source(place / "data", tmp_path / "out.h5", broken)


def vectors_file(file: Path, vectors: np.ndarray, stamp: str = "c") -> Codes:
    names = [f"{file.stem}{row}" for row in range(len(vectors))]
    quality = np.full(len(names), 100, np.uint8)
    found = Codes(names, vectors.astype(np.float32), quality, "rmac", checkpoint=stamp)
    write_codes(file, found)
    return found


def clustered(rows: int, seed: int, width: int = 8) -> np.ndarray:
    """Unit vectors with few values, so that many are equal and many products tie."""
    draw = np.random.default_rng(seed)
    vectors = draw.integers(0, 2, (rows, width)) + (np.arange(width) == 0)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute(a: Codes, b: Codes | None, least: float, k: int | None) -> str:
    other = a if b is None else b
    products = a.codes.astype(np.float64) @ other.codes.astype(np.float64).T
    distances = np.maximum(np.rint((1 - products) * 1e6), 0).astype(int)
    lines = []
    for i, row in enumerate(distances.tolist()):
        found = [(d, j) for j, d in enumerate(row) if d <= round((1 - least) * 1e6)]
        if k is None:
            found = [(d, j) for d, j in found if b is not None or i < j]
        else:
            found = sorted((d, j) for d, j in found if b is not None or i != j)[:k]
        lines += [f"{a.names[i]}\t{other.names[j]}\t{d / 1e6:.6f}\n" for d, j in found]
    return "".join(lines)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    least=st.sampled_from([-1.0, 0.7, 0.9, 1.0]),
    k=st.sampled_from([None, 1, 3, 21, 200]),
    alone=st.booleans(),
    rows=st.sampled_from([1, 7, 1000]),
)
def test_row_32_search_equals_brute_force(
    tmp_path_factory: pytest.TempPathFactory, sizes, least, k, alone, rows
) -> None:
    folder = tmp_path_factory.mktemp("cosine")
    a = vectors_file(folder / "a.h5", clustered(sizes[0], 1))
    b = None if alone else vectors_file(folder / "b.h5", clustered(sizes[1], 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cosine, "FLOATS", 8 * rows)
        patch.setattr(cosine, "QUERIES", 5)
        patch.setattr(cosine, "EXTRA", 1)
        out = folder / "pairs.tsv"
        near = Near(cosine=least, neighbours=k)
        found = search(folder / "a.h5", None if alone else folder / "b.h5", out, near, threads=1)
    expected = brute(a, b, least, k)
    assert out.read_text() == expected
    assert found.pairs == expected.count("\n")


def test_what_search_refuses(tmp_path: Path) -> None:
    vectors_file(tmp_path / "a.h5", clustered(3, 1))
    vectors_file(tmp_path / "b.h5", clustered(3, 1), "other")
    hashes = Codes(["x"], np.zeros((1, 4), np.uint64), np.full(1, 100, np.uint8), "pdq")
    write_codes(tmp_path / "h.h5", hashes)
    for a, b, options, said in (
        ("a", "b", {}, "different checkpoints"),
        ("a", "h", {}, "different methods"),
        ("a", None, {"radius": 3}, "holds embeddings"),
        ("h", None, {"cosine": 0.5}, "use a radius"),
        ("a", None, {"cosine": 1.5}, "found 1.5"),
        ("a", None, {"neighbours": 0}, "found 0"),
    ):
        with pytest.raises(SearchError, match=said):
            search(tmp_path / f"{a}.h5", b and tmp_path / f"{b}.h5", tmp_path / "out", Near(**options))
    content = bytearray((tmp_path / "a.h5").read_bytes())
    at = content.find(np.float32(clustered(3, 1)[0, 0]).tobytes())
    content[at] ^= 1
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.h5"):
        search(tmp_path / "a.h5", None, tmp_path / "out")


def test_embeddings_have_no_text_form(tmp_path: Path) -> None:
    vectors_file(tmp_path / "a.h5", clustered(3, 1))
    run = CliRunner().invoke(main, ["dedup", "print", str(tmp_path / "a.h5")])
    assert run.exit_code == 2
    assert "embeddings" in run.stderr
