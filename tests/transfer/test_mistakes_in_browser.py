"""The page of mistakes in a headless Chromium: keys, classes, thousands of pictures, odd names."""

import numpy as np
import pytest
from browser import in_browser
from judged_runs import CLASSES, embedded, packed, run_over

from hpcscale.data.store import open_data
from hpcscale.transfer import mistakes
from hpcscale.transfer.mistakes import Neighbours, gallery

TRUTHS = [0, 1, 2, 3, 0, 1, 3, 2]
PREDICTIONS = [1, 0, 0, 2, 3, 3, 0, 2]  # all wrong but the last
SURE = [5, 2, 3, 4, 1, 6, 7, 0]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    scores = np.zeros((8, 4))
    scores[np.arange(8), PREDICTIONS] = SURE
    run = run_over(folder, TRUTHS, PREDICTIONS, scores=scores)
    training = packed(folder / "t", {f"t{n}.jpg": "<b>tag</b>" for n in range(5)}, 50)
    chance = np.random.default_rng(0)
    files = [
        embedded(folder / f"{data.samples}.h5", data, chance.normal(size=(data.samples, 4)))
        for data in (open_data(folder / "data"), training)
    ]
    gallery(run, folder / "page.html", neighbours=Neighbours(*files, folder / "t" / "data", 2))
    return folder / "page.html"


def here(page) -> str:
    return page.run("return here < 0 ? '' : names[here]")


def choose(page, field: str, value: str) -> None:
    script = "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
    page.run(script + "field.dispatchEvent(new Event('change'))", field, value)


@in_browser
def test_row_45_keys_move_through_the_surest_first(chromium, page):
    chromium.open(page)
    order = [f"{n:02}.jpg" for n in np.argsort(SURE)[::-1] if n != 7]
    seen = [here(chromium)]
    for _ in order[1:]:
        chromium.press("j")
        seen.append(here(chromium))
    assert seen == order
    chromium.press("right", "k", "left")
    assert here(chromium) == order[4]
    columns = chromium.run("return columns")
    assert 1 < columns < 6
    chromium.press("up", "up", "up", "up")
    assert here(chromium) == order[4 % columns]
    chromium.press("down")
    assert here(chromium) == order[min(4 % columns + columns, 6)]
    chromium.click("#m2 .box")
    assert here(chromium) == order[2]
    chromium.press("j")  # and keys still work after a click
    assert here(chromium) == order[3]


@in_browser
def test_row_45_prediction_and_truth_stand_beside_the_picture_as_text(chromium, page):
    chromium.open(page)
    for _ in range(7):
        row = int(here(chromium)[:2])
        assert chromium.text("#predicted") == CLASSES[PREDICTIONS[row]]
        assert chromium.text("#truth") == CLASSES[TRUTHS[row]]
        sure = np.exp(SURE[row]) / (np.exp(SURE[row]) + 3)
        assert chromium.text("#sure") == f"Confidence {100 * sure:.1f} %"
        script = (
            "return Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)"
        )
        assert chromium.run(script) == 7 + 1 + 2  # cards, the large one, two neighbours
        assert chromium.text("#near").count("<b>tag</b>cosine ") == 2
        chromium.press("j")
    assert chromium.run("return document.querySelectorAll('main b, aside b, main script').length") == 0
    cards = chromium.run(
        "return [...document.querySelectorAll('figure .line')].map(line => line.textContent)"
    )
    assert "<script>alert(1)</script>" in cards
    assert "softmax over the 4 best classes of each picture." in chromium.text("#about")


@in_browser
def test_row_45_a_class_is_shown_alone_as_prediction_or_truth(chromium, page):
    chromium.open(page)
    number = str(chromium.run("return classes.indexOf('=cat')"))
    shown = "return visible.map(place => Number(names[place].slice(0, 2))).sort()"
    choose(chromium, "class", number)
    assert chromium.run(shown) == [0, 1, 2, 4, 6]
    choose(chromium, "as", "predicted")
    assert chromium.run(shown) == [1, 2, 6]
    assert chromium.text("#count") == "3 of 7 mistakes"
    choose(chromium, "as", "truth")
    assert chromium.run(shown) == [0, 4]
    chromium.press("x", "p")
    assert chromium.run(shown) == [
        n for n in range(7) if PREDICTIONS[n] == PREDICTIONS[int(here(chromium)[:2])]
    ]
    chromium.press("x", "t")
    row = int(here(chromium)[:2])
    assert chromium.run(shown) == [n for n in range(7) if TRUTHS[n] == TRUTHS[row]]
    chromium.press("x")
    choose(chromium, "sort", "truth")
    truths = chromium.run("return visible.map(place => mistakes[place][TRUTH])")
    assert truths == sorted(truths)


@in_browser
def test_of_thousands_only_those_in_sight_are_drawn(chromium, tmp_path, monkeypatch):
    count = 3000
    run = run_over(tmp_path, [0] * 4, [1] * 4)
    real = mistakes._content

    def many(*words):
        """The page's own content, as if there were thousands of mistakes; pictures are those of the first."""
        content = real(*words)
        rows = [[*content["mistakes"][0][:2], 1 - n / count, []] for n in range(count)]
        return content | {"mistakes": rows, "names": [f"{n}.jpg" for n in range(count)]}

    monkeypatch.setattr(mistakes, "_content", many)
    gallery(run, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    tail = "".join(f'<script type="text/plain" id="t{n}">\n</script>' for n in range(1, count // 64 + 1))
    (tmp_path / "page.html").write_text(text.replace("</body>", tail + "</body>"))
    chromium.open(tmp_path / "page.html")
    drawn = "return document.querySelectorAll('figure').length"
    assert 8 < chromium.run(drawn) < 80
    chromium.press("\ue010")  # End
    assert here(chromium) == "2999.jpg"
    chromium.wait("return document.getElementById('m2999') !== null && scrollY > 10000")
    chromium.wait("return document.getElementById('m0') === null")
    assert 8 < chromium.run(drawn) < 80
