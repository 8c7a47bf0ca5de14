"""The papers' numbers as the package keeps them: one follows from another, and all are those at hand."""

import csv

import pytest
from places import PHOTOGRAPHS

from hpcscale.study import papers, points, readings

TABLES = papers.tables()
REFERENCE = PHOTOGRAPHS.parent / "reference" / "tables"
ROUNDED = 0.05 + 1e-9  # what one decimal hides
# Of a file at hand: the table of ours, its column of rows, and how many columns that are no numbers of ours.
FILES = {
    "001_table1_imagenet": ("sun2017-1", ()),
    "001_table2_coco_testdev": ("sun2017-2", ()),
    "001_table3_voc07_perclass_ap50": ("sun2017-3", ()),
    "001_table4_jft_epochs": ("sun2017-4", ("iters_int", "epochs")),
    "001_table5_imagenet_epochs": ("sun2017-5", ("iters_int", "epochs")),
    "001_table6_num_classes": ("sun2017-6", ("pretrain_images",)),
    "001_table7_pose_testdev": ("sun2017-7", ()),
    "001_figure5_model_capacity": ("sun2017-capacity", ()),
    "001_figure6_left_voc12_miou": ("sun2017-segmentation", ()),
    "001_dedup_counts": ("sun2017-duplicates", ()),
    "000_table1_imagenet_dedup": ("sun2017-8", ()),
    "000_table2_coco_minival_dedup": ("sun2017-9", ()),
    "000_table3_voc_dedup": ("sun2017-10", ()),
    "000_table4_coco_testdev_detection": ("sun2017-11", ()),
    "000_table5_voc12_seg_perclass": ("sun2017-12", ()),
    "000_table6_coco_testdev_pose": ("sun2017-13", ()),
    "000_table7_coco_testdev_perclass": ("sun2017-14", ()),
    "003_models": ("mahajan2018-models", ("groups", "width_per_group")),
    "004_table1_dedup": ("kolesnikov2020-s1", ()),
}


def printed(table, row, column):
    return TABLES[table].numbers[row, column].value


def mean(table, row, columns):
    return sum(printed(table, row, column) for column in columns) / len(columns)


def test_row_56_all_tables_of_the_papers_are_there():
    assert {f"sun2017-{number}" for number in range(1, 15)} <= TABLES.keys()
    assert {f"kolesnikov2020-{number}" for number in (1, 2, 3, 4, 5, "s1")} <= TABLES.keys()
    assert "mahajan2018-1" in TABLES
    assert set(papers.tables("mahajan2018")) == {name for name in TABLES if name.startswith("mahajan2018-")}


@pytest.mark.parametrize("name", sorted(FILES))
def test_row_56_our_numbers_are_those_at_hand(name):
    if not REFERENCE.is_dir():
        pytest.skip("the tables at hand lie beside the clone; they are not here")
    table, apart = FILES[name]
    with (REFERENCE / f"{name}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    theirs = [[text for key, text in row.items() if key not in apart and text][1:] for row in rows]
    ours = [
        [
            found.text
            for column in TABLES[table].columns
            if (found := TABLES[table].numbers.get((row, column)))
        ]
        for row in TABLES[table].rows
    ]
    assert ours == theirs


def test_row_56_of_sun_the_same_number_stands_in_several_tables():
    jft, both = "Fine-tune from JFT-300M", ("ImageNet", "300M", "ImageNet+300M")
    for row in TABLES["sun2017-1"].rows:
        for column in ("top-1", "top-5"):
            assert printed("sun2017-8", row, f"original: {column}") == printed("sun2017-1", row, column)
    for row in both:
        assert printed("sun2017-2", row, "mAP@.5") == printed("sun2017-11", row, "AP@.5")
        assert printed("sun2017-2", row, "mAP@[.5,.95]") == printed("sun2017-11", row, "AP")
        assert printed("sun2017-10", row, "VOC 2007: original") == printed("sun2017-3", row, "mean")
        assert printed("sun2017-10", row, "VOC 2012: original") == printed(
            "sun2017-segmentation", row, "mIOU"
        )
        assert printed("sun2017-12", row, "mIOU") == printed("sun2017-segmentation", row, "mIOU")
        for column in ("AP", "AP@.5", "AR", "AR@.5"):
            assert printed("sun2017-7", row, column) == printed("sun2017-13", row, column)
    detection = "original: mAP@[.5,.95]"
    assert printed("sun2017-9", "300M", detection) == printed("sun2017-4", "36M", "mAP@[.5,.95]")
    assert printed("sun2017-9", "300M", detection) == printed("sun2017-capacity", "ResNet-101", "300M")
    assert printed("sun2017-9", "ImageNet", detection) == printed("sun2017-5", "5M", "mAP@[.5,.95]")
    assert printed("sun2017-1", jft, "top-1") - printed("sun2017-1", "Random initialization", "top-1") == (
        pytest.approx(1.7)
    )


def test_row_56_of_sun_means_over_classes_are_those_of_the_classes():
    for row in TABLES["sun2017-3"].rows:
        classes = TABLES["sun2017-3"].columns[:-1]
        assert len(classes) == 20
        assert abs(mean("sun2017-3", row, classes) - printed("sun2017-3", row, "mean")) <= ROUNDED
    for row in TABLES["sun2017-12"].rows:
        classes = TABLES["sun2017-12"].columns[1:]
        assert len(classes) == 21
        assert abs(mean("sun2017-12", row, classes) - printed("sun2017-12", row, "mIOU")) <= ROUNDED
    assert len(TABLES["sun2017-14"].rows) == 80
    for group, ap, not_ap50 in (
        ("ImageNet", 34.56, 48.85),
        ("300M", 36.96, 51.02),
        ("ImageNet+300M", 37.63, 51.42),
    ):
        for column, expected in ((f"{group}: AP", ap), (f"{group}: AP@.5", not_ap50)):
            values = [printed("sun2017-14", row, column) for row in TABLES["sun2017-14"].rows]
            assert sum(values) / 80 == pytest.approx(expected, abs=0.005)


def test_row_56_numbers_of_the_other_papers_follow():
    sizes = {
        "val-IN-50k-1k": 50_000,
        "val-CUB-6k-200": 5794,
        "val-Places-37k-365": 36_500,
        "val-COCO-5k-80": 5000,
    }
    assert set(sizes) == set(TABLES["mahajan2018-duplicates"].rows)
    for row, pictures in sizes.items():
        share = 100 * printed("mahajan2018-duplicates", row, "duplicates") / pictures
        assert f"{share:.2f}" == TABLES["mahajan2018-duplicates"].numbers[row, "share"].text
    search, rule = (
        printed("kolesnikov2020-search", row, "VTAB-1k") for row in ("random search", "BiT-HyperRule")
    )
    assert search - rule == pytest.approx(2.43)
    assert printed("kolesnikov2020-1", "BiT-L", "VTAB") == rule
    for up in ("JFT-300M", "ImageNet-21k", "ILSVRC-2012"):
        for row in TABLES["kolesnikov2020-s1"].rows:
            if printed("kolesnikov2020-s1", row, f"{up}: dups") == 0:
                assert printed("kolesnikov2020-s1", row, f"{up}: full") == (
                    printed("kolesnikov2020-s1", row, f"{up}: dedup")
                )
    assert printed("mahajan2018-differences", "labels replaced: 10%", "top-1") is None  # "<1"


@pytest.mark.parametrize("name", list(TABLES))
def test_row_56_each_column_has_a_metric_or_says_why_not(name):
    about = TABLES[name].about
    assert not about.metrics.keys() - set(TABLES[name].columns)
    for metric in about.metrics.values():
        assert readings.split(metric)[0] in readings.PARTS
    lacking = set(TABLES[name].columns) - about.metrics.keys()
    assert not lacking or "unfilled" in about.model_fields_set
    assert about.source.startswith(("Sun et al. 2017", "Mahajan et al. 2018", "Kolesnikov et al. 2020"))


@pytest.mark.parametrize("name", list(papers.figures()))
def test_row_58_each_printed_number_of_a_figure_is_one_of_a_table(name):
    figure = papers.figures()[name]
    found = points.anchors(figure)
    assert [point.family for point in found] == [anchor[0] for anchor in figure.anchors]
    assert {point.family for point in found} <= set(figure.families)
    assert points.misplaced(figure, found) is None
    readings.split(figure.metric)
