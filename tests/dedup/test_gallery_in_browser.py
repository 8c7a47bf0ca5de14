"""The gallery in a headless Chromium: what a reviewer does on the page, and what becomes of it."""

import json
import re

from browser import browser, in_browser
from pages import ODD, ROWS, make, picture

from hpcscale import pairs
from hpcscale.dedup.gallery import Sources, gallery
from hpcscale.pairs import Decision


def states(page) -> dict[str, str]:
    """Candidate and picture -> what is decided, of all pairs of the page."""
    found = page.run("return pairs.map((p, i) => [names[p[0]] + names[p[1]], state(i)])")
    return {pair: state for pair, state in found if state}


def here(page) -> str:
    return page.run("return here < 0 ? '' : names[pairs[here][0]] + names[pairs[here][1]]")


@in_browser
def test_row_35_keys_decide_move_and_take_back(tmp_path, chromium):
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
    chromium.reload()
    assert states(chromium) == {}
    chromium.press("r")  # newer than the file: it stays
    with saved.open("a") as stream:
        stream.write(json.dumps({"a": "elsewhere", "b": "2", "decision": "accept"}) + "\n")
    chromium.type("#file", str(saved))
    chromium.wait("return document.getElementById('note').textContent")
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
        note = chromium.wait("return document.getElementById('note').textContent")
        assert note.startswith("wrong.jsonl: line 2: not ")
        assert states(chromium) == {}


@in_browser
def test_a_closed_tab_loses_nothing(tmp_path):
    page = make(tmp_path, ROWS)
    other = make(tmp_path / "other", ROWS[:2])
    with browser(tmp_path / "browser") as first:
        first.open(page)
        first.type("#reviewer", "ann")
        first.run("document.activeElement.blur()")
        first.press("a", "r", "a", "u")
        first.run("return new Promise(done => setTimeout(done, 2000))")
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
    chromium.reload()
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
    gallery(tmp_path / "pairs.tsv", tmp_path / "page.html", Sources(tmp_path / "a", tmp_path / "b"))
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
    gallery(tmp_path / "pairs.tsv", tmp_path / "page.html", Sources(tmp_path / "a", tmp_path / "b"))
    chromium.open(tmp_path / "page.html")
    chromium.press("a", "r", "j", "u", "shift+A", "n", " ")
    assert chromium.text("#none") == "No pair to show."
