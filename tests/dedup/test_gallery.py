"""The gallery's file: what is on the page, what is refused, and the decisions of several reviewers joined."""

import base64
import html.parser
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pages import ODD, ROWS, make, picture
from PIL import Image

from hpcscale import pairs
from hpcscale.cli import main
from hpcscale.dedup.gallery import Sources, closest, gallery
from hpcscale.pairs import Decision, Pair, PairsError


class Reader(html.parser.HTMLParser):
    """The elements of a page, as a browser parses it: (tag, attributes, text)."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.found: list[list] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data

    def texts(self, **wanted):
        return [text for _, found, text in self.found if wanted.items() <= found.items()]


def test_the_page_has_each_picture_once_and_nothing_from_elsewhere(tmp_path):
    reader = Reader(make(tmp_path, ROWS))
    page = json.loads(reader.texts(id="page")[0])
    lines = [line for text in reader.texts(type="text/plain") for line in text.strip().split("\n")]
    assert sorted(page["names"]) == ["1", "2", "3", "x", "y", "z"]
    assert len(lines) == len(set(lines)) == 6
    for name, line in zip(page["names"], lines, strict=True):
        side = "b" if name in "123" else "a"
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(line))), float)
        assert found.shape == (40, 50, 3)
        assert np.abs(found - np.asarray(Image.open(tmp_path / side / name), float)).mean() < 25
    shown = [(page["names"][a], page["names"][b], d) for a, b, d in page["pairs"]]
    assert shown == [("z", "2", 1), ("x", "2", 20), ("x", "1", 3), ("y", "1", 9), ("y", "3", 12)]
    assert (page["a"], page["b"], page["found"]) == ("a", "b", 5)
    assert {tag for tag, found, _ in reader.found if {"src", "href"} & set(found)} == set()
    assert "default-src 'none'" in reader.found[3][1]["content"]


def test_names_are_harmless(tmp_path):
    odd = ODD.replace("/", "\u2215")  # what a file name can hold
    reader = Reader(make(tmp_path, [(odd, "</title><b>.png".replace("/", "\u2215"), 1)]))
    assert odd in json.loads(reader.texts(id="page")[0])["names"]
    tags = [tag for tag, _, _ in reader.found]
    assert not {"img", "b"} & set(tags)
    assert tags.count("script") == 3


def test_names_in_tags_of_the_page_are_harmless(tmp_path):
    for side, name in (("a", "</script><script>alert(1)"), ("b", "</title><script>alert(1)")):
        picture(tmp_path / side / name.replace("/", "\u2215").replace("<", "<") / "p.png")
    (tmp_path / "pairs.tsv").write_text("p.png\tp.png\t1\n")
    a, b = (next((tmp_path / side).iterdir()) for side in "ab")
    decided = tmp_path / "d.jsonl"
    decided.write_text(json.dumps({"a": "</script>", "b": "<!--", "decision": "accept", "reviewer": "<b>"}))
    gallery(tmp_path / "pairs.tsv", tmp_path / "page.html", Sources(a, b), decided, method="</script><i>")
    tags = [tag for tag, _, _ in Reader(tmp_path / "page.html").found]
    assert tags.count("script") == 3
    assert not {"i", "b"} & set(tags)


def test_closest_pairs_and_each_pair_once():
    rows = [Pair(a, b, d) for a, b, d in [*ROWS, ("x", "1", 4)]]
    shown, count = closest(rows, 3)
    assert (shown, count) == ([Pair("z", "2", 1), Pair("x", "1", 3)], 6)  # x and 1 came twice
    assert closest([], 3) == ([], 0)


def test_what_is_missing_is_named_and_the_page_is_there(tmp_path):
    make(tmp_path, ROWS)
    (tmp_path / "a" / "z").unlink()
    (tmp_path / "b" / "3").write_bytes(b"not a picture")
    args = [tmp_path / "pairs.tsv", tmp_path / "again.html", "--a", tmp_path / "a", "--b", tmp_path / "b"]
    done = CliRunner().invoke(main, ["dedup", "gallery", *map(str, args), "--limit", "4"])
    assert done.exit_code == 1
    assert "'z': not found" in done.stderr
    assert "the 4 closest of 5 lines" in done.stderr
    assert "1 pictures are missing" not in (tmp_path / "again.html").read_text()
    assert done.stdout.startswith(f"{tmp_path / 'again.html'}: 4 pairs, 6 pictures")


def test_sources_in_the_wrong_place_are_refused(tmp_path):
    page = make(tmp_path, ROWS)
    page.unlink()
    with pytest.raises(PairsError, match="has none of the 3 pictures of column a"):
        gallery(tmp_path / "pairs.tsv", page, Sources(tmp_path / "b", tmp_path / "a"))
    assert not page.exists()


def test_within_one_set_a_picture_of_both_columns_is_there_once(tmp_path):
    for seed, name in enumerate("xyz"):
        picture(tmp_path / "a" / name, seed)
    (tmp_path / "pairs.tsv").write_text("x\ty\t1\ny\tz\t2\n")
    args = [tmp_path / "pairs.tsv", tmp_path / "page.html", "--a", tmp_path / "a"]
    done = CliRunner().invoke(main, ["dedup", "gallery", *map(str, args)])
    assert done.exit_code == 0, done.output
    assert sorted(json.loads(Reader(tmp_path / "page.html").texts(id="page")[0])["names"]) == ["x", "y", "z"]


def test_row_35_merge_lists_what_is_disputed(tmp_path):
    for who, verdict in (("ann", "accept"), ("bob", "reject")):
        decided = {("a\t1", "b"): Decision(verdict, who), ("a", "2"): Decision("accept", who)}
        pairs.write_decisions(tmp_path / f"{who}.jsonl", decided)
    files = [str(tmp_path / f"{who}.jsonl") for who in ("ann", "bob")]
    out = tmp_path / "both.jsonl"
    done = CliRunner().invoke(main, ["dedup", "decisions", "merge", *files, "--out", str(out)])
    assert done.exit_code == 1
    assert done.stdout == "a\\t1\tb\tann: accept\tbob: reject\n"
    assert pairs.read_decisions(out) == {("a", "2"): Decision("accept", "ann, bob")}
    done = CliRunner().invoke(main, ["dedup", "decisions", "merge", files[0], "--out", str(out)])
    assert (done.exit_code, done.stdout) == (0, "")
