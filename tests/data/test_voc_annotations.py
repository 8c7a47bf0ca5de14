"""Annotations of PASCAL VOC: rows of XML files, and what is refused by file and key."""

from pathlib import Path

import pytest
from places import PHOTOGRAPHS

from hpcscale.data.voc import Object, Picture, VocError, find, read, read_folder

SAMPLE, CELLS = PHOTOGRAPHS / "voc-sample", PHOTOGRAPHS / "blood-cells"
TEXT = """<annotation><filename>a.jpg</filename>
<size><width>50</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name> dog </name><truncated>1</truncated>
<bndbox><ymin>2</ymin><xmin>5</xmin><ymax>9</ymax><xmax>8</xmax></bndbox>
<part><name>head</name><bndbox><xmin>6</xmin><ymin>3</ymin><xmax>7</xmax><ymax>4</ymax></bndbox></part></object>
</annotation>"""


def test_rows_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "one.xml").write_text(TEXT)
    objects = (Object("cat", (1, 2.5, 30, 40), True, False), Object("dog", (5, 2, 8, 9), False, True))
    assert list(read_folder(tmp_path)) == [Picture("one", "a.jpg", 50, 40, objects)]
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "two.xml").write_text(TEXT)
    assert [file.name for file in find(tmp_path)] == ["two.xml"]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not there")
def test_real_annotations() -> None:
    pictures = list(read_folder(SAMPLE))
    assert len(pictures) == 50
    assert {picture.file for picture in pictures} >= {"2007_000027.jpg"}
    assert any(each.difficult for picture in pictures for each in picture.objects)
    assert any(each.truncated for picture in pictures for each in picture.objects)


@pytest.mark.skipif(not CELLS.is_dir(), reason=f"{CELLS} is not there")
def test_boxes_without_an_extent_are_given_as_they_stand() -> None:
    pictures = list(read_folder(CELLS))
    assert sum(len(picture.objects) for picture in pictures) == 4888
    flat = [p.name for p in pictures for each in p.objects if each.box[2] <= each.box[0]]
    assert flat == ["BloodImage_00338", "BloodImage_00343"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("<xmin>1</xmin>", "", "object 0: 'bndbox/xmin': found 'None'"),
        ("<xmin>1</xmin>", "<xmin>one</xmin>", "object 0: 'bndbox/xmin': found 'one'"),
        ("<xmin>1</xmin>", "<xmin>nan</xmin>", "object 0: 'bndbox/xmin': found 'nan'"),
        ("<difficult>1", "<difficult>2", "object 0: 'difficult': found '2'; allowed: 0 or 1"),
        ("<name> dog </name>", "", "object 1: 'name' is missing"),
        ("<width>50</width>", "", "'size/width': found 'None'"),
        ("</annotation>", "", "not XML"),
        ("annotation>", "notes>", "found <notes>; allowed: <annotation>"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "declares an entity"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    file = tmp_path / "bad.xml"
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(VocError, match=named) as error:
        read(file)
    assert str(error.value).startswith(str(file))


def test_a_folder_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(VocError, match=r"found no \.xml"):
        find(tmp_path)
