"""`hpcscale labels precision`: the page's file, answers of reviewers, what is told and what is refused."""

import base64
import html.parser
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from judged import answer, packed
from PIL import Image
from places import PHOTOGRAPHS

from hpcscale.cli import main
from hpcscale.data.jpeg import BadPicture
from hpcscale.labels import wordnet
from hpcscale.pairs import Decision, PairsError
from hpcscale.review import page as pages
from hpcscale.review.draw import Draw, Label, Stratum
from hpcscale.review.precision import as_json, as_text, measure, of_answers, read_answers

ODD = "<img src=x onerror=alert(1)>\"'&amp;</script><!--\u2028é"
RATERS = PHOTOGRAPHS / "raters/golden.npz"
ROWS = {"1.jpg": ["dog"], "2.jpg": ["dog", "cat"], "3.jpg": ["cat"], "4.jpg": [], "5.jpg": ["car"]}
TREE = {"pet": [], "dog": ["pet"], "cat": ["pet"], "car": []}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("set"), ROWS, TREE)


class Reader(html.parser.HTMLParser):
    """The elements of a page, as a browser parses it: id or tag -> text."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.texts, self.key = [], {}, ""
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.key = dict(attributes).get("id", tag)

    def handle_data(self, data):
        self.texts[self.key] = self.texts.get(self.key, "") + data


def run(asked, *more):
    options = ["--vocabulary", asked.vocabulary, "--sample", asked.sample, *more]
    return CliRunner().invoke(main, ["labels", "precision", *map(str, [asked.data, *options])])


def test_the_page_has_every_drawn_label_and_nothing_from_elsewhere(tmp_path, asked):
    out = tmp_path / "page.html"
    done = run(asked, "--out", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{out}: 5 of 5 labels in 1 strata")
    reader = Reader(out)
    page = json.loads(reader.texts["page"])
    shown = {(page["names"][name], page["classes"][c]["name"]) for name, c in page["labels"]}
    assert shown == {(name, tag) for name, tags in ROWS.items() for tag in tags}
    assert [each["above"] for each in page["classes"]] == [["pet"], ["pet"], []]
    assert json.loads(reader.texts["missing"]) == []
    lines = reader.texts["t0"].strip("\n").split("\n")
    assert len(lines) == len(page["names"]) == 4  # a picture with two labels is there once
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(lines[page["names"].index("3.jpg")]))), float)
    original = np.asarray(Image.open(asked.data.parent / "pictures" / "3.jpg"), float)
    assert found.shape == original.shape
    assert np.abs(found - original).mean() < 25
    assert not [found for _, found in reader.tags if {"src", "href"} & set(found)]
    assert any("default-src 'none'" in found.get("content", "") for _, found in reader.tags)


def test_the_same_command_writes_the_same_page_and_replaces_no_other_file(tmp_path, asked):
    out = tmp_path / "page.html"
    assert run(asked, "--out", out).exit_code == 0
    before = out.read_bytes()
    assert run(asked, "--out", out).exit_code == 0
    assert out.read_bytes() == before
    out.write_text("mine")
    done = run(asked, "--out", out)
    assert (done.exit_code, out.read_text()) == (2, "mine")
    assert "not what this command writes" in done.stderr
    assert "is an input" in run(asked, "--out", asked.vocabulary).stderr


def test_names_are_harmless(tmp_path):
    file = ODD.replace("/", "\u2215")
    asked = packed(tmp_path / ODD.replace("/", "\u2215"), {file: [ODD, "b"]})
    out = tmp_path / "page.html"
    pages.write(asked, out)
    reader = Reader(out)
    page = json.loads(reader.texts["page"])
    assert page["names"] == [file]
    assert ODD in [each["name"] for each in page["classes"]]
    assert [tag for tag, _ in reader.tags].count("script") == 4
    assert not {"img", "b"} & {tag for tag, _ in reader.tags}


def test_a_picture_that_does_not_decode_is_missing_on_the_page(tmp_path, asked, monkeypatch):
    def thumbnail(picture, side, quality, real=pages.thumbnail):
        if picture == bad:
            raise BadPicture("no")
        return real(picture, side, quality)

    bad = (asked.data.parent / "pictures" / "3.jpg").read_bytes()
    monkeypatch.setattr(pages, "thumbnail", thumbnail)
    done = run(asked, "--out", tmp_path / "page.html")
    assert done.exit_code == 1
    assert "'3.jpg': cannot be decoded" in done.stderr
    assert "1 pictures are missing" in done.stderr
    reader = Reader(tmp_path / "page.html")
    names = json.loads(reader.texts["page"])["names"]
    assert [names[index] for index in json.loads(reader.texts["missing"])] == ["3.jpg"]
    assert reader.texts["t0"].split("\n")[names.index("3.jpg")] == ""


@pytest.mark.skipif(not (wordnet.FOLDER / "data.noun").exists(), reason="wordnet-base is not installed")
def test_definitions_stand_beside_labels_of_wordnet(tmp_path, asked):
    args = ["labels", "build", tmp_path / "v.json", "--data", asked.data, "--use", "tags", "--no-ancestors"]
    assert CliRunner().invoke(main, list(map(str, args))).exit_code == 0
    pages.write(asked._replace(vocabulary=tmp_path / "v.json"), tmp_path / "page.html")
    page = json.loads(Reader(tmp_path / "page.html").texts["page"])
    dog = next(each for each in page["classes"] if "dog" in each["tags"])
    assert len(dog["means"]) == 7
    assert dog["means"][0].startswith("a member of the genus Canis")
    missing = run(asked, "--out", tmp_path / "other.html", "--wordnet", tmp_path)
    assert missing.exit_code == 0  # a vocabulary without senses needs none
    missing = run(
        asked._replace(vocabulary=tmp_path / "v.json"), "--out", tmp_path / "o.html", "--wordnet", tmp_path
    )
    assert missing.exit_code == 2
    assert "data.noun is missing" in missing.stderr


def test_reviewers_are_read_and_measured(tmp_path, asked):
    _, vocabulary, drawn = asked.draw()
    names = vocabulary.classes
    ann, bob = tmp_path / "ann.jsonl", tmp_path / "bob.jsonl"
    said = {"ann": ["yes", "yes", "no", "yes", "yes"], "bob": ["yes", "yes", "no", "no"]}
    for file, who in ((ann, "ann"), (bob, "bob")):
        file.write_text("".join(answer(drawn, names, k, each, who) for k, each in enumerate(said[who])))
    with bob.open("a") as stream:  # a change of mind
        stream.write(answer(drawn, names, 1, "unsure", "bob", time="2026-01-02"))
    done = run(asked, "--decisions", ann, "--decisions", bob, "--json")
    found = json.loads(done.stdout)
    assert found["strata"][0] == {
        "least": 1, "below": 20, "classes": 3, "labels": 5, "drawn": 5,
        "yes": 2, "no": 1, "unsure": 2, "precision": pytest.approx(2 / 3), "low": 0.4, "high": 0.8,
    }  # fmt: skip
    assert (found["precision"], found["low"], found["high"]) == (pytest.approx(2 / 3), 0.4, 0.8)
    assert found["unsure_share"] == pytest.approx(2 / 5)
    assert found["precision_if_unsure_wrong"] == pytest.approx(2 / 5)
    assert found["precision_if_unsure_right"] == pytest.approx(4 / 5)
    assert found["reviewers"] == {"ann": 5, "bob": 4}
    assert found["agreement"] == found["pairs"][0]["agreement"] == 0.5
    assert found["pairs"][0]["labels"] == 4
    text = run(asked, "--decisions", ann, "--decisions", bob).stdout
    assert "66.7%, 40.0% to 80.0%" in text
    assert "Nobody can say for 40.0% (weighted): precision is 40.0% if all of these are wrong, 80.0%" in text
    assert "ann and bob: 50.0% of 4 labels alike, Cohen's kappa 0.2" in text


def test_answers_given_before_are_on_the_page(tmp_path, asked):
    _, vocabulary, drawn = asked.draw()
    file = tmp_path / "ann.jsonl"
    file.write_text(answer(drawn, vocabulary.classes, 3, "no", "ann", time="2026-01-02", picture="x"))
    assert run(asked, "--out", tmp_path / "page.html", "--decisions", file).exit_code == 0
    page = json.loads(Reader(tmp_path / "page.html").texts["page"])
    assert page["answers"] == [{"place": 3, "decision": "no", "reviewer": "ann", "time": "2026-01-02"}]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"page": "sample-7-seed-0-x"},
            "to page 'sample-7-seed-0-x', but this draw is sample-100-",
        ),
        ({"page": None}, "'page' must be a string"),
        ({"sample": 77}, "sample 77 with label '.*' is not on the page"),
        ({"sample": [1]}, r"sample \[1\] with label"),
        ({"label": "pet"}, "with label 'pet' is not on the page"),
        ({"decision": "accept"}, "'decision' is 'accept', allowed: yes, no, unsure"),
        ({"answer": "yes"}, "unknown key 'answer'; known are page, sample, picture"),
        ({"time": "noon"}, "Invalid isoformat"),
    ],
)
def test_a_wrong_answer_is_named(tmp_path, asked, change, why):
    _, vocabulary, drawn = asked.draw()
    file = tmp_path / "a.jsonl"
    good = answer(drawn, vocabulary.classes, 0, "yes")
    file.write_text(good + json.dumps({**json.loads(good), **change}) + "\n")
    with pytest.raises(PairsError, match=r"a\.jsonl:2: .*" + why):
        measure(asked, [file])
    done = run(asked, "--decisions", file)
    assert (done.exit_code, done.stdout) == (1, "")


def test_answers_to_another_draw_are_refused(tmp_path, asked):
    _, vocabulary, drawn = asked.draw()
    (tmp_path / "a.jsonl").write_text(answer(drawn, vocabulary.classes, 0, "yes"))
    for other in (asked._replace(seed=1), asked._replace(sample=3)):
        done = run(other, "--seed", other.seed, "--decisions", tmp_path / "a.jsonl")
        assert done.exit_code == 1
        assert "this draw is sample-" in done.stderr


def test_a_selection_narrows_what_is_drawn(tmp_path, asked):
    (tmp_path / "classes.txt").write_text("cat\ncar\n")
    (tmp_path / "names.txt").write_text("1.jpg\n2.jpg\n3.jpg\n")
    (tmp_path / "s.toml").write_text(f'classes = "{tmp_path}/classes.txt"\nnames = "{tmp_path}/names.txt"\n')
    out = tmp_path / "page.html"
    assert run(asked, "--selection", tmp_path / "s.toml", "--out", out).exit_code == 0
    page = json.loads(Reader(out).texts["page"])
    shown = {(page["names"][name], page["classes"][c]["name"]) for name, c in page["labels"]}
    assert shown == {("2.jpg", "cat"), ("3.jpg", "cat")}
    chosen = asked._replace(selection=str(tmp_path / "s.toml"))
    _, vocabulary, drawn = chosen.draw()
    (tmp_path / "a.jsonl").write_text(answer(drawn, vocabulary.classes, 0, "yes"))
    assert measure(chosen, [tmp_path / "a.jsonl"]).precision.value == 1
    assert "this draw is" in run(asked, "--decisions", tmp_path / "a.jsonl").stderr
    assert (
        "is an input" in run(asked, "--selection", tmp_path / "s.toml", "--out", tmp_path / "s.toml").stderr
    )


def test_neither_page_nor_answers_is_wrong_usage(asked):
    assert "--out to draw a page, or --decisions to measure" in run(asked).stderr
    assert run(asked).exit_code == 2


def labels(*sizes):
    """A draw of all labels in strata of these sizes."""
    strata = [Stratum(1, 20, size, 10 * size, size) for size in sizes]
    places = [index for index, size in enumerate(sizes) for _ in range(size)]
    return Draw("id", strata, [Label(sample, 0, index) for sample, index in enumerate(places)])


def said(*decisions):
    return {f"r{number}": Decision(decision) for number, decision in enumerate(decisions)}


def test_more_than_half_of_the_reviewers_decide():
    views = [("yes", "yes", "no"), ("yes", "no"), ("yes", "unsure"), ("no", "no", "yes", "unsure"), ("no",)]
    found = of_answers(labels(6), {place: said(*view) for place, view in enumerate(views)})
    assert found.rows[0][1:4] == (1, 1, 3)


def test_a_stratum_without_answers_is_left_out_and_told():
    found = of_answers(labels(2, 6), {0: said("yes"), 1: said("no")})
    assert found.precision.value == 0.5
    assert found.rows[1].precision is None
    assert "leaves out 75.0% of the labels" in as_text(found)
    assert as_json(found)["strata"][1]["precision"] is None
    assert as_json(found)["agreement"] is None
    nothing = of_answers(labels(2, 6), {})
    assert nothing.precision is None
    assert "No label has an answer yet." in as_text(nothing)
    assert json.loads(json.dumps(as_json(nothing)))["precision"] is None
    only_unsure = of_answers(labels(2), {0: said("unsure")})
    assert (only_unsure.precision, only_unsure.if_wrong, only_unsure.if_right) == (None, 0, 1)


def test_strata_count_as_many_labels_as_they_have():
    drawn = labels(1, 3)
    found = of_answers(drawn, {0: said("no"), 1: said("yes"), 2: said("yes"), 3: said("unsure")})
    assert found.precision.value == pytest.approx(0.75)
    assert found.unsure == pytest.approx(0.25)


@pytest.mark.skipif(not RATERS.exists(), reason=f"{RATERS} is not there")
def test_the_votes_of_five_raters_on_imagenet(tmp_path):
    """1,135 pairs of picture and label; the majority says yes to 248 (its README)."""
    votes = np.load(RATERS)["tensor"].argmax(2)  # (raters, pairs): 0 no, 2 yes
    drawn = labels(votes.shape[1])
    lines = [
        answer(drawn, ["x"], place, {0: "no", 2: "yes"}[int(vote)], f"rater {number}")
        for number, row in enumerate(votes)
        for place, vote in enumerate(row)
    ]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    found = of_answers(drawn, read_answers([tmp_path / "a.jsonl"], drawn, ["x"]))
    assert found.rows[0][1:4] == (248, 1135 - 248, 0)
    assert found.rows[0].precision.low < 248 / 1135 < found.rows[0].precision.high
    yes = (votes == 2).sum(0)
    assert found.agreement == pytest.approx(1 - (yes * (5 - yes)).sum() / (10 * 1135))
    assert len(found.couples) == 10
    assert found.alpha == pytest.approx(np.mean([each.kappa for each in found.couples]), abs=0.02)
