"""The gallery: what is on the page, and, in a headless Chromium, what a reviewer does with it."""

import base64
import html.parser
import io
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from browser import MISSING, browser
from click.testing import CliRunner
from PIL import Image

from hpcscale import pairs
from hpcscale.cli import main
from hpcscale.dedup.gallery import closest, gallery
from hpcscale.dedup.places import find_pictures, thumbnail
from hpcscale.ingest.packing import ingest
from hpcscale.pairs import Decision, Pair, PairsError

in_browser = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt: chromium chromium-driver)"
)
ODD = "<img src=x onerror=alert(1)>\"'&amp;\n</script><!--\u2028é.png"


def picture(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).resize((50, 40)).save(file, "PNG")
    return file


def make(folder: Path, rows, **options):
    """A page over pictures of the names in rows; returns its file."""
    for seed, name in enumerate(dict.fromkeys(name for a, b, _ in rows for name in (f"a/{a}", f"b/{b}"))):
        picture(folder / name, seed)
    lines = "".join(f"{pairs.escape(a)}\t{pairs.escape(b)}\t{d}\n" for a, b, d in rows)
    (folder / "pairs.tsv").write_bytes(os.fsencode(lines))
    gallery(folder / "pairs.tsv", folder / "page.html", folder / "a", folder / "b", **options)
    return folder / "page.html"


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


ROWS = [("x", "1", 3), ("y", "1", 9), ("z", "2", 1), ("x", "2", 20), ("y", "3", 12)]


# the file


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
    gallery(tmp_path / "pairs.tsv", tmp_path / "page.html", a, b, decided, method="</script><i>")
    tags = [tag for tag, _, _ in Reader(tmp_path / "page.html").found]
    assert tags.count("script") == 3
    assert not {"i", "b"} & set(tags)


def test_closest_pairs_and_each_pair_once():
    rows = [Pair(a, b, d) for a, b, d in [*ROWS, ("x", "1", 4)]]
    shown, count = closest(rows, 3)
    assert (shown, count) == ([Pair("z", "2", 1), Pair("x", "1", 3)], 6)  # x and 1 came twice
    assert closest([], 3) == ([], 0)


def test_pictures_are_found_in_folders_tars_and_data_sets(tmp_path):
    names = {"k/1.png", "k/2.png"}
    for seed, name in enumerate([*sorted(names), "k/3.png"]):
        picture(tmp_path / "folder" / name, seed)
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "s.tar", "w") as tar:
        for file in sorted((tmp_path / "folder" / "k").iterdir()):
            tar.add(file, f"k/{file.name}")
    ingest(tmp_path / "folder", tmp_path / "set", None, None, 1, 2, 90)
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
        gallery(tmp_path / "pairs.tsv", page, tmp_path / "b", tmp_path / "a")
    assert not page.exists()


def test_within_one_set_a_picture_of_both_columns_is_there_once(tmp_path):
    for seed, name in enumerate("xyz"):
        picture(tmp_path / "a" / name, seed)
    (tmp_path / "pairs.tsv").write_text("x\ty\t1\ny\tz\t2\n")
    args = [tmp_path / "pairs.tsv", tmp_path / "page.html", "--a", tmp_path / "a"]
    done = CliRunner().invoke(main, ["dedup", "gallery", *map(str, args)])
    assert done.exit_code == 0, done.output
    assert sorted(json.loads(Reader(tmp_path / "page.html").texts(id="page")[0])["names"]) == ["x", "y", "z"]


# the commands beside it


def test_merge_lists_what_is_disputed(tmp_path):
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


# in the browser


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def chromium(opened):
    """The browser, remembering nothing of the test before."""
    yield opened
    opened.run("localStorage.clear()")
    for file in opened.downloads.iterdir():
        file.unlink()


def states(page) -> dict[str, str]:
    """Candidate and picture -> what is decided, of all pairs of the page."""
    found = page.run("return pairs.map((p, i) => [names[p[0]] + names[p[1]], state(i)])")
    return {pair: state for pair, state in found if state}


def here(page) -> str:
    return page.run("return here < 0 ? '' : names[pairs[here][0]] + names[pairs[here][1]]")


@in_browser
def test_keys_decide_move_and_take_back(tmp_path, chromium):
    chromium.open(make(tmp_path, ROWS))
    assert here(chromium) == "z2"
    assert chromium.text("#name-b") == "2"
    chromium.press("j", "down", "right", "k", "up")
    assert here(chromium) == "x2"
    chromium.press("left", "left", "a", "r")
    assert (here(chromium), states(chromium)) == ("x1", {"z2": "accept", "x2": "reject"})
    assert chromium.text("#count") == "2 of 5 decided · 1 ✓ · 1 ✗"
    chromium.press("u")
    assert (here(chromium), states(chromium)) == ("x2", {"z2": "accept"})
    chromium.press("u", "u")
    assert (here(chromium), states(chromium)) == ("z2", {})
    assert "Nothing to undo" in chromium.text("#note")
    chromium.press("j", "j", "shift+R")
    assert (here(chromium), states(chromium)) == ("y3", {"x1": "reject", "y1": "reject"})
    chromium.press("u", "r", "k", "shift+A", "k", "k", "n")  # what is decided stays
    assert (here(chromium), states(chromium)) == ("y3", {"x1": "reject", "y1": "accept"})


@in_browser
def test_the_mouse_decides(tmp_path, chromium):
    chromium.open(make(tmp_path, ROWS))
    chromium.click("#p3 button.reject")
    chromium.click("#p2 .box")
    chromium.click("#accept")
    assert (here(chromium), states(chromium)) == ("x1", {"y1": "reject", "x1": "accept"})
    assert "reject" in chromium.run("return document.getElementById('p3').className")
    chromium.click("#p3 button.reject")  # once more takes it back
    chromium.press("j")  # and keys still work after a click
    assert (here(chromium), states(chromium)) == ("y3", {"x1": "accept"})


@in_browser
def test_save_and_load(tmp_path, chromium):
    page = make(tmp_path, ROWS)
    chromium.open(page)
    chromium.type("#reviewer", "ann a")  # an a in a field decides nothing
    chromium.run("document.activeElement.blur()")
    assert states(chromium) == {}
    chromium.press("a", "r", "s")
    saved = chromium.downloaded("decisions-ann_a.jsonl")
    decided = pairs.read_decisions(saved)
    assert {pair: (d.decision, d.reviewer) for pair, d in decided.items()} == {
        ("z", "2"): ("accept", "ann a"),
        ("x", "2"): ("reject", "ann a"),
    }
    chromium.run("localStorage.clear()")
    chromium.open(page)
    assert states(chromium) == {}
    chromium.press("r")  # newer than the file: it stays
    with saved.open("a") as stream:
        stream.write(json.dumps({"a": "elsewhere", "b": "2", "decision": "accept"}) + "\n")
    chromium.type("#file", str(saved))
    wait(chromium, "return document.getElementById('note').textContent")
    assert states(chromium) == {"z2": "reject", "x2": "reject"}
    saved.unlink()
    chromium.click("#save")
    again = pairs.read_decisions(chromium.downloaded("decisions.jsonl"))
    assert set(again) == {("z", "2"), ("x", "2"), ("elsewhere", "2")}


@in_browser
def test_a_file_that_is_no_decisions_file_changes_nothing(tmp_path, chromium):
    chromium.open(make(tmp_path, ROWS))
    wrong = tmp_path / "wrong.jsonl"
    for line in ('{"a": 1}', '{"a": "x", "b": "2", "decision": "maybe"}', "null", "{"):
        wrong.write_text('{"a": "z", "b": "2", "decision": "accept"}\n' + line)
        chromium.run("document.getElementById('note').textContent = ''")
        chromium.type("#file", str(wrong))
        note = wait(chromium, "return document.getElementById('note').textContent")
        assert note.startswith("wrong.jsonl: line 2: not ")
        assert states(chromium) == {}


def wait(page, script):
    for _ in range(100):
        if value := page.run(script):
            return value
    raise AssertionError(f"never true: {script}")


@in_browser
def test_a_closed_tab_loses_nothing(tmp_path):
    page = make(tmp_path, ROWS)
    other = make(tmp_path / "other", ROWS[:2])
    with browser(tmp_path / "browser") as first:
        first.open(page)
        first.type("#reviewer", "ann")
        first.run("document.activeElement.blur()")
        first.press("a", "r", "a", "u")
        first.run("return new Promise(done => setTimeout(done, 200))")
    with browser(tmp_path / "browser") as second:
        second.open(page)
        assert states(second) == {"z2": "accept", "x2": "reject"}
        assert second.run("return document.getElementById('reviewer').value") == "ann"
        second.open(other)
        assert states(second) == {}


@in_browser
def test_decisions_made_before_are_there_until_taken_back(tmp_path, chromium):
    decided = tmp_path / "d.jsonl"
    before = {("z", "2"): Decision("accept", "ann", "2020-01-01T00:00:00Z"), ("y", "3"): Decision("reject")}
    pairs.write_decisions(decided, before)
    page = make(tmp_path, ROWS, decisions=decided)
    chromium.open(page)
    assert states(chromium) == {"z2": "accept", "y3": "reject"}
    assert "Accepted by ann, 2020" in chromium.text("#said")
    chromium.press("r")
    chromium.click("#p4 button.reject")
    chromium.open(page)
    assert states(chromium) == {"z2": "reject"}


@in_browser
def test_filters(tmp_path, chromium):
    chromium.open(make(tmp_path, ROWS))
    shown = "return [...document.querySelectorAll('.card')].map(card => Number(card.id.slice(1)))"
    chromium.press("a")
    for show, found in (
        ("undecided", [1, 2, 3, 4]),
        ("accept", [0]),
        ("reject", []),
        ("all", [0, 1, 2, 3, 4]),
    ):
        script = "const s = document.getElementById('show'); s.value = arguments[0]"
        chromium.run(script + "; s.dispatchEvent(new Event('change'))", show)
        assert chromium.run(shown) == found
    chromium.type("#from", "3")
    chromium.type("#to", "9\ue004")  # Tab leaves the field
    assert chromium.run(shown) == [2, 3]
    assert "Shown: 2 of 5 pairs" in chromium.text("#shown")
    chromium.run(
        "document.activeElement.blur(); document.getElementById('show').value = 'undecided'; filter()"
    )
    chromium.press("a")
    assert chromium.run(shown) == [2, 3]  # stays until filtered again
    chromium.press("f")
    assert chromium.run(shown) == [3]


@in_browser
def test_odd_names_are_shown_as_they_are(tmp_path, chromium):
    odd = ODD.replace("/", "\u2215")
    chromium.open(make(tmp_path, [(odd, "\udcff\tb.png", 1)]))
    assert chromium.text("#name-a").startswith(odd)
    assert chromium.run("return document.querySelectorAll('.box img').length") == 2
    assert chromium.run("return [...document.images].every(i => i.src.startsWith('data:') && i.naturalWidth)")
    chromium.press("a", "s")
    assert set(pairs.read_decisions(chromium.downloaded("decisions.jsonl"))) == {(odd, "\udcff\tb.png")}


@in_browser
def test_ten_thousand_pairs_are_drawn_a_few_at_a_time(tmp_path, chromium):
    """No pictures are needed for this: all but two are missing. One picture has 3,000 candidates."""
    picture(tmp_path / "a" / "00000")
    picture(tmp_path / "b" / "00000")
    lines = [f"{i:05d}\t{0 if i < 3000 else i // 5:05d}\t{i % 32}\n" for i in range(10_000)]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    gallery(tmp_path / "pairs.tsv", tmp_path / "page.html", tmp_path / "a", tmp_path / "b")
    chromium.open(tmp_path / "page.html")
    cards = "return document.querySelectorAll('.card').length"
    assert 0 < chromium.run(cards) < 250
    chromium.press("a", *["j"] * 60, "r")
    assert chromium.run("return visible.indexOf(here)") == 62
    assert in_sight(chromium)
    chromium.run("go(9999)")
    assert 0 < chromium.run(cards) < 250
    assert in_sight(chromium)
    chromium.press("r", "k", "k")
    assert in_sight(chromium)
    assert chromium.text("#count") == "3 of 10,000 decided · 1 ✓ · 2 ✗"


def in_sight(page) -> bool:
    """The current card lies below the bar, above the bottom and within its strip."""
    return page.run(
        """const card = document.getElementById('p' + here), box = card.getBoundingClientRect();
        const strip = card.parentNode.getBoundingClientRect();
        const bar = document.querySelector('header').getBoundingClientRect().bottom;
        return box.top >= bar && box.bottom <= innerHeight &&
            box.left >= strip.left && box.right <= strip.right"""
    )


@in_browser
def test_nothing_is_loaded_and_no_error_is_raised(tmp_path, chromium):
    chromium.open(make(tmp_path, ROWS))
    chromium.run("window.broken = []; addEventListener('error', e => broken.push(e.message))")
    chromium.press("a", "j", "r", "u", "n", "f", " ", "s", "shift+A", "k")
    assert chromium.run("return broken") == []
    fetched = chromium.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not re.match("data:|blob:", name)] == []


@in_browser
def test_a_page_without_pairs_says_so(tmp_path, chromium):
    (tmp_path / "pairs.tsv").write_text("")
    for name in "ab":
        (tmp_path / name).mkdir()
    gallery(tmp_path / "pairs.tsv", tmp_path / "page.html", tmp_path / "a", tmp_path / "b")
    chromium.open(tmp_path / "page.html")
    chromium.press("a", "r", "j", "u", "shift+A", "n", " ")
    assert chromium.text("#none") == "No pair to show."
