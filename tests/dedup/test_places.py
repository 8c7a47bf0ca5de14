"""Pictures found by their names in folders, tars and data sets, and their thumbnails."""

import io
import tarfile

import numpy as np
from pages import picture
from PIL import Image

from hpcscale.dedup.places import find_pictures, thumbnail
from hpcscale.ingest.packing import Packing, ingest


def test_pictures_are_found_in_folders_tars_and_data_sets(tmp_path):
    names = {"k/1.png", "k/2.png"}
    for seed, name in enumerate([*sorted(names), "k/3.png"]):
        picture(tmp_path / "folder" / name, seed)
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "s.tar", "w") as tar:
        for file in sorted((tmp_path / "folder" / "k").iterdir()):
            tar.add(file, f"k/{file.name}")
    ingest(tmp_path / "folder", tmp_path / "set", packing=Packing(shard_samples=2), workers=1)
    wanted = {name: Image.open(tmp_path / "folder" / name) for name in names}
    for source, prefix in (("folder", ""), ("tars", "s.tar/"), ("tars/s.tar", "s.tar/"), ("set", "")):
        found = find_pictures(tmp_path / source, {prefix + name for name in (*names, "none")})
        assert set(found) == {prefix + name for name in names}
        for name in names:
            pixels = np.asarray(Image.open(io.BytesIO(thumbnail(found[prefix + name], 80, 90))), float)
            assert np.abs(pixels - np.asarray(wanted[name], float)).mean() < 25


def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    picture(tmp_path / "secret.png")
    (tmp_path / "folder").mkdir()
    names = {"../secret.png", str(tmp_path / "secret.png"), "a\0b"}
    assert find_pictures(tmp_path / "folder", names) == {}


def test_thumbnails_are_small_and_keep_their_shape(tmp_path):
    Image.effect_noise((900, 300), 60).convert("RGB").save(tmp_path / "n.jpg")
    found = Image.open(
        io.BytesIO(thumbnail(next(iter(find_pictures(tmp_path, {"n.jpg"}).values())), 176, 70))
    )
    assert found.size == (176, 59)
