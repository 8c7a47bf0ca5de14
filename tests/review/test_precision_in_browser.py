"""The page of `labels precision` in a headless Chromium: what a reviewer does, and what becomes of it."""

import json
import re

import pytest
from browser import browser, in_browser
from judged import answer, packed

from hpcscale.data.jpeg import BadPicture
from hpcscale.review import page as pages
from hpcscale.review.precision import measure, read_answers

ROWS = {f"{number}.jpg": [("dog", "cat", "car")[number % 3]] for number in range(12)}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("set"), ROWS)


@pytest.fixture(scope="module")
def page(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    pages.write(asked, out)
    return out


def enter(chromium, page, name="ann"):
    """Open the page; whoever is not known yet says a name."""
    chromium.open(page)
    if chromium.run("return document.getElementById('ask').open"):
        chromium.type("#reviewer", name)
        chromium.click("#begin")
    chromium.wait("return reviewer")


def states(chromium):
    found = chromium.run("return labels.map((_, place) => state(place))")
    return {place: state for place, state in enumerate(found) if state}


def here(chromium):
    return chromium.run("return here")


@in_browser
def test_keys_answer_move_and_take_back(chromium, page):
    enter(chromium, page)
    chromium.press("y", "n", "c")
    assert (here(chromium), states(chromium)) == (3, {0: "yes", 1: "no", 2: "unsure"})
    assert chromium.text("#count") == "3 of 12 · 1 yes · 1 no · 1 can't say"
    chromium.press("u")
    assert (here(chromium), states(chromium)) == (2, {0: "yes", 1: "no"})
    chromium.press("k", "left", "j", "n")  # once more: takes it back
    assert (here(chromium), states(chromium)) == (1, {0: "yes"})
    chromium.press("k", "n", "up", "\ue007")  # an answer is replaced; Enter: the next without one
    assert (here(chromium), states(chromium)) == (1, {0: "no"})
    chromium.press("u", "u", "u", "u", "u", "u", "u")
    assert states(chromium) == {}
    assert "Nothing to undo" in chromium.text("#note")


@in_browser
def test_the_mouse_answers(chromium, page):
    enter(chromium, page)
    chromium.click("#no")
    chromium.click("#strip button:nth-child(4)")
    chromium.click("#unsure")
    assert (here(chromium), states(chromium)) == (4, {0: "no", 3: "unsure"})
    chromium.press("k")
    assert chromium.run("return document.getElementById('unsure').getAttribute('aria-pressed')") == "true"
    assert "unsure" in chromium.run("return document.getElementById('picture').className")
    chromium.press("j", "y")  # and keys still work after a click
    assert states(chromium)[4] == "yes"


@in_browser
def test_the_label_is_shown_with_its_picture(chromium, page, asked):
    _, vocabulary, drawn = asked.draw()
    enter(chromium, page)
    for place, label in enumerate(drawn.labels):
        assert here(chromium) == place
        assert chromium.text("#label") == vocabulary.classes[label.c]
        assert chromium.text("#name") == f"Picture: {list(ROWS)[label.sample]}"
        script = (
            "const i = document.querySelector('#picture img'); return i.decode().then(() => i.naturalWidth)"
        )
        assert chromium.run(script) == 50
        chromium.press("j")


@in_browser
def test_what_is_saved_is_measured(chromium, page, asked):
    enter(chromium, page, "ann a/b")
    chromium.press("y", "y", "n", "c", "y", "s")
    saved = chromium.downloaded("labels-ann_a_b.jsonl")
    found = measure(asked, [saved])
    assert found.rows[0][1:4] == (3, 1, 1)
    assert found.reviewers == {"ann a/b": 5}
    _, vocabulary, drawn = asked.draw()
    answers = read_answers([saved], drawn, vocabulary.classes)
    assert {place: by["ann a/b"].decision for place, by in answers.items()} == states(chromium)


@in_browser
def test_a_name_is_needed_and_each_reviewer_sees_the_own_answers(chromium, page):
    chromium.open(page)
    chromium.press("y")  # goes into the field
    assert states(chromium) == {}
    chromium.click("#begin")
    chromium.wait("return reviewer == 'y'")
    chromium.press("n", "n")
    chromium.click("#who")
    chromium.type("#reviewer", " \ue007")  # no name: it stays
    assert chromium.run("return reviewer") == "y"
    chromium.click("#who")
    chromium.type("#reviewer", "\ue003bob")  # backspace: the name is selected
    chromium.click("#begin")
    chromium.wait("return reviewer == 'bob'")
    assert (here(chromium), states(chromium)) == (0, {})
    chromium.press("y")
    chromium.reload()  # bob is remembered
    assert (here(chromium), states(chromium)) == (1, {0: "yes"})
    chromium.run("enter('y')")
    assert states(chromium) == {0: "no", 1: "no"}


@in_browser
def test_a_closed_tab_loses_nothing(tmp_path, page, asked):
    pages.write(asked._replace(seed=5), tmp_path / "other.html")
    with browser(tmp_path / "browser") as first:
        enter(first, page)
        first.press("y", "c", "n", "u")
        first.run("return new Promise(done => setTimeout(done, 2000))")
    with browser(tmp_path / "browser") as second:
        second.open(page)
        assert (here(second), states(second)) == (2, {0: "yes", 1: "unsure"})
        second.open(tmp_path / "other.html")  # another draw
        assert states(second) == {}


@in_browser
def test_answers_given_before_are_there_until_taken_back(tmp_path, chromium, asked):
    _, vocabulary, drawn = asked.draw()
    lines = [
        answer(drawn, vocabulary.classes, place, "no", who, time="2020-01-01")
        for place, who in ((0, "ann"), (2, "ann"), (1, "bob"))
    ]
    (tmp_path / "d.jsonl").write_text("".join(lines))
    pages.write(asked, tmp_path / "page.html", [tmp_path / "d.jsonl"])
    enter(chromium, tmp_path / "page.html")
    assert (here(chromium), states(chromium)) == (1, {0: "no", 2: "no"})
    chromium.press("k")
    assert "No, 2020-01-01" in chromium.text("#said")
    chromium.press("y", "j", "n")
    chromium.open(tmp_path / "page.html")
    assert states(chromium) == {0: "yes"}


@in_browser
def test_load(tmp_path, chromium, page, asked):
    _, vocabulary, drawn = asked.draw()
    names, file = vocabulary.classes, tmp_path / "d.jsonl"
    good = [answer(drawn, names, 0, "no", "ann"), answer(drawn, names, 1, "no", "ann")]
    file.write_text("".join([*good, answer(drawn, names, 2, "no", "bob")]))
    enter(chromium, page)
    chromium.press("y")  # newer than the file: it stays
    chromium.type("#file", str(file))
    note = chromium.wait("return document.getElementById('note').textContent")
    assert note == "d.jsonl: 1 answers taken, 1 newer ones kept, 1 of other reviewers left out."
    assert states(chromium) == {0: "yes", 1: "no"}
    other = json.dumps({**json.loads(good[0]), "page": "x"})
    elsewhere = json.dumps({**json.loads(good[0]), "sample": 99})
    for line, why in (
        ("{", "not JSON"),
        ("null", "not an answer"),
        ('{"decision": "maybe"}', "not an answer"),
        (other, "an answer to another page"),
        (elsewhere, "not on this page"),
    ):
        file.write_text(answer(drawn, names, 5, "no", "ann") + line)
        chromium.run("document.getElementById('note').textContent = ''")
        chromium.type("#file", str(file))
        note = chromium.wait("return document.getElementById('note').textContent")
        assert note.startswith("d.jsonl: line 2: ")
        assert why in note
        assert states(chromium) == {0: "yes", 1: "no"}


@in_browser
def test_filter(chromium, page):
    enter(chromium, page)
    chromium.press("y", "n", "n", "c")
    choose = "const show = document.getElementById('show'); show.value = arguments[0]"
    script = f"{choose}; show.dispatchEvent(new Event('change'))"
    shown = {"all": list(range(12)), "no": [1, 2], "yes": [0], "unsure": [3], "open": list(range(4, 12))}
    for show, places in shown.items():
        chromium.run(script, show)
        assert chromium.run("return visible") == places
        assert here(chromium) in places
    chromium.run(script, "no")
    chromium.press("c", "c", "u")
    assert states(chromium) == {0: "yes", 1: "unsure", 2: "no", 3: "unsure"}
    chromium.run("enter('nobody')")
    chromium.run(script, "no")
    chromium.press("y", "j", "u", "\ue007")
    assert "No label to show." in chromium.text("#picture")


@in_browser
def test_a_missing_picture_is_not_answered(tmp_path, chromium, asked, monkeypatch):
    def thumbnail(picture, side, quality, real=pages.thumbnail):
        if picture == bad:
            raise BadPicture("no")
        return real(picture, side, quality)

    _, _, drawn = asked.draw()
    name = list(ROWS)[drawn.labels[1].sample]
    bad = (asked.data.parent / "pictures" / name).read_bytes()
    monkeypatch.setattr(pages, "thumbnail", thumbnail)
    pages.write(asked, tmp_path / "page.html")
    enter(chromium, tmp_path / "page.html")
    chromium.press("y", "y")
    assert "does not count" in chromium.text("#note")
    assert "no picture" in chromium.text("#picture")
    chromium.press("\ue007")
    assert (here(chromium), states(chromium)) == (2, {0: "yes"})
    assert chromium.text("#count").startswith("1 of 11 ")


@in_browser
def test_nothing_is_loaded_and_no_error_is_raised(tmp_path, chromium):
    odd = "<img src=x onerror=alert(1)>\u2028\"'&amp;<!--"
    asked = packed(tmp_path, {odd + ".jpg": [odd, "constructor"], "2.jpg": ["__proto__", odd]})
    asked = asked._replace(data=asked.data.rename(tmp_path / f"<b>{odd}"))
    pages.write(asked, tmp_path / "page.html")
    chromium.open(tmp_path / "page.html")
    assert chromium.text("#title").startswith("<b><img src=x onerror=alert(1)>\\u2028")
    chromium.run("window.broken = []; addEventListener('error', e => broken.push(e.message))")
    chromium.type("#reviewer", odd)
    chromium.click("#begin")
    chromium.wait("return reviewer")
    texts = set()
    for _ in range(4):
        texts.add(chromium.text("#label"))
        chromium.press("y")
    assert texts == {odd, "constructor", "__proto__"}
    chromium.run("classes.forEach(each => each.means = [arguments[0]]); draw()", odd)
    assert chromium.text("#means") == odd
    chromium.press("j", "k", "u", "c", "s", "x", "\ue007")
    assert chromium.run("return broken") == []
    assert chromium.run("return document.querySelectorAll('img[src=x]').length") == 0
    fetched = chromium.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not re.match("data:|blob:", name)] == []
    saved = chromium.downloaded("labels-" + re.sub(r"[^\w-]+", "_", odd) + ".jsonl")
    assert measure(asked, [saved]).reviewers == {odd: 4}
