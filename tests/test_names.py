"""Names of data sets: all of the paper, both ways; how numbers are rounded; what is no name."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import PHOTOGRAPHS

from hpcscale import names
from hpcscale.names import BadName, Name, alike, fits, parse, read, rounded

# Table 1 of Mahajan et al. 2018; I and L of a template are filled in from the text beside it.
TABLE = {
    "train-IG-940M-1.5k": Name("train", "IG", 940_000_000, 1500),
    "train-IG-1B-8.5k": Name("train", "IG", 10**9, 8500),
    "train-IG-3.5B-17k": Name("train", "IG", 3_500_000_000, 17_000),
    "train-IN-1M-1k": Name("train", "IN", 10**6, 1000),
    "val-IN-50k-1k": Name("val", "IN", 50_000, 1000),
    "train-IN-6.6M-5k": Name("train", "IN", 6_600_000, 5000),
    "train-IN-10.5M-9k": Name("train", "IN", 10_500_000, 9000),
    "val-IN-250k-5k": Name("val", "IN", 250_000, 5000),
    "train-CUB-6k-200": Name("train", "CUB", 6000, 200),
    "val-CUB-6k-200": Name("val", "CUB", 6000, 200),
    "train-Places-1.8M-365": Name("train", "Places", 1_800_000, 365),
    "val-Places-37k-365": Name("val", "Places", 37_000, 365),
    "train-COCO-115k-80": Name("train", "COCO", 115_000, 80),
    "val-COCO-5k-80": Name("val", "COCO", 5000, 80),
    "test-COCO-20k-80": Name("test", "COCO", 20_000, 80),
}
# How the papers' texts write them.
TEXTS = {
    "IN-1k": Name(None, "IN", None, 1000),
    "train-IN-9k": Name("train", "IN", None, 9000),
    "val-CUB-200": Name("val", "CUB", None, 200),
    "Places-365": Name(None, "Places", None, 365),
    "ImageNet-1k": Name(None, "ImageNet", None, 1000),
    "IG-1B": Name(None, "IG", 10**9, None),
    "IG-1B-1k": Name(None, "IG", 10**9, 1000),
    "IG-940M-1k": Name(None, "IG", 940_000_000, 1000),
    "IG-3.5B-17k": Name(None, "IG", 3_500_000_000, 17_000),
    "JFT-300M": Name(None, "JFT", 300_000_000, None),
    "ImageNet-14M": Name(None, "ImageNet", 14_000_000, None),
}


@pytest.mark.parametrize(("text", "name"), [*TABLE.items(), *TEXTS.items()], ids=[*TABLE, *TEXTS])
def test_row_05_the_names_of_the_papers_both_ways(text: str, name: Name) -> None:
    assert parse(text) == name
    assert names.format(name) == text


def test_row_05_table_1_as_it_was_collected() -> None:
    file = PHOTOGRAPHS.parent / "reference/tables/003_table1_datasets.csv"
    if not file.exists():
        pytest.skip(f"needs {file}, which is not part of the project")
    rows = list(csv.DictReader(file.open()))
    filled = [row["name_template"].replace("-I-", "-3.5M-").replace("-L", "-5k") for row in rows]
    assert len(filled) == 14
    assert [names.format(parse(text)) for text in filled] == filled


numbers = st.builds(
    lambda whole, tenth, unit: (f"{whole}.{tenth}" if tenth and unit and whole < 100 else f"{whole}") + unit,
    st.integers(1, 900), st.integers(0, 9), st.sampled_from(["", "k", "M", "B"]),
)  # fmt: skip
words = st.from_regex(r"[A-Za-z][A-Za-z0-9_]*", fullmatch=True)
sources = st.just("IN") | words.filter(lambda word: word not in names.ROLES)


@given(st.sampled_from([None, *names.ROLES]), sources, numbers, numbers | st.none())
def test_row_05_every_name_comes_back(role: str | None, source: str, one: str, two: str | None) -> None:
    text = "-".join(filter(None, (role, source, one, two)))
    if two and read(two) >= 10**6:
        with pytest.raises(BadName, match="labels"):
            parse(text)
        return
    name = parse(text)
    assert (name.role, name.source) == (role, source)
    assert [each for each in name[2:] if each is not None] == [read(each) for each in (one, two) if each]
    assert names.format(name) == (text.replace("IN-1.3M", "IN-1M") if source == "IN" else text)


@given(st.integers(1, 10**6) | st.integers(1, names.MOST))
def test_row_05_a_count_is_rounded_to_three_digits_and_one_after_the_point(count: int) -> None:
    text = rounded(count)
    assert len(text.rstrip("kMB").replace(".", "")) <= 3
    value = read(text)  # also checks the form
    unit = 10 ** (3 * ((len(str(value)) - 1) // 3))
    step = max(1, unit // 10, 10 ** (len(str(count)) - 3))
    assert abs(value - count) * 2 <= step
    assert rounded(value) == text
    assert fits(value, count)


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1"), (365, "365"), (999, "999"), (1000, "1k"), (1499, "1.5k"), (18_291, "18.3k"), (115_000, "115k"),
     (999_499, "999k"), (999_500, "1M"), (1_803_460, "1.8M"), (10_450_000, "10.5M"), (3_500_000_000, "3.5B")],
)  # fmt: skip
def test_row_05_rounding(count: int, text: str) -> None:
    assert rounded(count) == text


def test_row_05_imagenets_pictures_are_written_1m() -> None:
    assert names.format(Name("train", "IN", 1_281_167, 1000)) == "train-IN-1M-1k"
    assert names.format(Name("train", "web", 1_281_167, 1000)) == "train-web-1.3M-1k"


@pytest.mark.parametrize(
    ("number", "count", "good"),
    [("1M", 1_281_167, True), ("1.3M", 1_281_167, True), ("1.2M", 1_281_167, False), ("37k", 36_500, True),
     ("36.5k", 36_500, True), ("6k", 5_794, True), ("18k", 18_291, True), ("17k", 18_291, False),
     ("115k", 118_287, False), ("1k", 0, False)],
)  # fmt: skip
def test_row_05_a_number_stands_for_a_count(number: str, count: int, good: bool) -> None:
    assert fits(read(number), count) is good


@pytest.mark.parametrize(
    ("asked", "there", "good"),
    [("IG-940M-1k", "train-IG-940M-1.5k", True), ("train-IG-940M-1.5k", "train-IG-940M-1k", True),
     ("ImageNet-1k", "train-IN-1M-1k", True), ("train-IN-1.3M-1k", "train-IN-1M-1k", True),
     ("Instagram-17k", "IG-1B-17k", True), ("web-940M-1k", "web-940M-1.5k", False),
     ("val-IN-1k", "train-IN-1M-1k", False), ("train-IG-1B-17k", "train-IG-17k", False),
     ("IN-5k", "IN-9k", False), ("IN-5k", "CUB-5k", False)],
)  # fmt: skip
def test_row_05_aliases(asked: str, there: str, good: bool) -> None:
    assert alike(parse(asked), parse(there)) is good


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no source"),
        ("train", "'train': no source"),
        ("train-IG", "0 numbers after the source 'IG'"),
        ("dev-IG-1k", "'IG' is no number"),
        ("train-IG-I-1.5k", "'I' is no number as 365"),
        ("IN-1k-aligned", "'aligned' is no number"),
        ("train-IG-1B-17k-2", "3 numbers after"),
        ("train-IG-1500M-17k", "'1500M' .*; write 1.5B; a name is role-source-I-L"),
        ("train-IG-0.5M-17k", "write 500k"),
        ("train-IG-1.0B-17k", "write 1B"),
        ("train-IG-1.55B-17k", "write 1.6B"),
        ("train-IG-100.5M-17k", "write 101M"),
        ("train-IG-1b-17K", "'1b' is no number .*; write 1B"),
        ("train-IG-1B-18291", "'18291' .*; write 18.3k"),
        ("train-IG-0-17k", r"'0' is no number as 365, 50k, 1.5k, 940M or 3.5B; a name"),
        ("train-IG-1T-17k", "'1T' is no number"),
        ("train-IG-901B-17k", "'901B' is no number"),
        ("train-IG-١-17k", "is no number"),
        ("train-2web-1k", "'2web' is no source"),
        ("train-wéb-1k", "is no source"),
        ("packed/ig", "'packed/ig' is no source"),
        ("train-IG-1B-2M", "2M labels; a name has fewer than 1,000,000"),
        (" IN-1k", "' IN' is no source"),
        ("IN-1k\n", r"'1k\\n' is no number"),
        ("IN--1k", "'' is no number"),
    ],
)
def test_what_is_no_name_is_told(text: str, message: str) -> None:
    with pytest.raises(BadName, match=message):
        parse(text)


@pytest.mark.parametrize(
    "name",
    [Name(None, "IG", 6000, None), Name(None, "IG", None, 2 * 10**6), Name(None, "IG", None, None),
     Name("dev", "IG", 1000, 10), Name(None, "val", None, 1000), Name("val", "a-b", None, 1000),
     Name("val", "IG", 0, 1000), Name("val", "IG", 10**12, 1000)],
)  # fmt: skip
def test_what_would_not_read_back_is_not_written(name: Name) -> None:
    with pytest.raises(BadName):
        names.format(name)
