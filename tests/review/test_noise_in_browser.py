"""The page of label noise in a headless Chromium: classes, bins, clusters, larger pictures, odd names."""

from pathlib import Path

import pytest
from browser import Browser, in_browser
from demo_runs import APPLES, ODD, make

from hpcscale.review.clusters import Look
from hpcscale.review.noise import browse

TILES = "return [...document.querySelectorAll('.bin')].map(bin => bin.querySelectorAll('.tile img').length)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    browse(make(folder), folder / "page.html", look=Look(clusters=3, bins=4, tiles=5))
    return folder / "page.html"


@pytest.fixture
def chromium(opened: Browser, page: Path) -> Browser:
    opened.post("/url", url="about:blank")  # else the same address would only move to a class
    opened.open(page)
    return opened


@in_browser
def test_a_class_is_shown_bin_by_bin(chromium: Browser) -> None:
    assert chromium.text("#name") == "apple"
    assert chromium.text("#of") == f"{APPLES} pictures, 3 clusters:"
    assert chromium.run(TILES) == [5, 5, 5, 5]
    heads = chromium.run("return [...document.querySelectorAll('.bin h3')].map(head => head.textContent)")
    assert heads == ["nearest", "2", "3", "farthest"]
    ready = "return [...document.images].every(image => image.complete && image.naturalWidth === 40)"
    assert chromium.wait(ready)


@in_browser
def test_keys_and_the_mouse_choose_a_class(chromium: Browser) -> None:
    chromium.press("j")
    assert chromium.text("#name") == ODD  # shown as it is, and nothing of it runs
    assert chromium.run("return [document.images.length, location.hash]") == [20, "#2"]
    chromium.press("down", "down")
    assert chromium.text("#name") == "pear"
    chromium.press("k", "up", "up")
    assert chromium.text("#name") == "apple"
    chromium.click("#list button[data-index='2']")
    assert (chromium.text("#name"), chromium.text("#list [aria-current=true] .name")) == ("pear", "pear")
    chromium.press("k")  # and keys still work after a click
    assert chromium.text("#name") == ODD


@in_browser
def test_a_class_is_found_by_a_part_of_its_name(chromium: Browser) -> None:
    chromium.press("/")
    chromium.type("#find", "EAr")
    assert chromium.run(
        "return [...document.querySelectorAll('#list .name')].map(one => one.textContent)"
    ) == ["pear"]
    chromium.type("#find", "\ue007")  # Enter
    assert chromium.text("#name") == "pear"
    chromium.press("j")  # nothing else is in the list
    assert chromium.text("#name") == "pear"


@in_browser
def test_one_cluster_is_shown_alone(chromium: Browser) -> None:
    dimmed = "return [...document.querySelectorAll('.tile.dim')].map(tile => tile.dataset.cluster)"
    assert chromium.run(dimmed) == []
    chromium.click(".cluster:nth-child(2)")
    found = chromium.run(dimmed)
    assert found
    assert "1" not in found
    chromium.click(".cluster:nth-child(2)")
    assert chromium.run(dimmed) == []


@in_browser
def test_a_picture_is_shown_larger_with_what_is_known_of_it(chromium: Browser) -> None:
    chromium.click(".bin:last-child .tile:last-child")
    name, tags, distance, *_ = chromium.run(
        "return [...document.querySelectorAll('#large dd')].map(one => one.textContent)"
    )
    assert name.endswith(".png")
    assert tags == "apple"
    assert float(distance) == pytest.approx(chromium.run("return classes[0].bins[3].to"), abs=1e-4)
    chromium.press("j")  # belongs to the page behind
    assert chromium.text("#name") == "apple"
    chromium.press("\ue00c")  # Escape
    assert chromium.run("return document.getElementById('large').open") is False


@in_browser
def test_the_address_leads_to_a_class(chromium: Browser, page: Path) -> None:
    for place, name in (("3", "pear"), ("99", "apple"), ("x", "apple")):
        chromium.post("/url", url="about:blank")
        chromium.post("/url", url=f"{page.resolve().as_uri()}#{place}")
        assert chromium.text("#name") == name
