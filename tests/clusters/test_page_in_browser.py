"""The page of clusters in a browser: search, filters, pages, and what it loads."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_samples import Colours, clusters_of
from PIL import Image

from ssl_platform.clusters.health import TrainingHealth
from ssl_platform.clusters.page import write_page
from ssl_platform.clusters.summary import summarize

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'ssl_platform[browser]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; CHROMIUM=<its path>")
K = 130  # clusters 0 to 129, of id + 1 images, as far as they are used


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # containers run as root, where the sandbox of Chromium does not start
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Named(Colours):
    classes = ("apple", "<b>pear</b>")

    def describe(self, index: int) -> str:
        return f"/images/{index // 1000}/img_{index:05d}.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = np.repeat(np.arange(K), np.arange(K) + 1)
    labels = (ids % 7 == 0).astype(np.int64)  # one cluster in seven is of pears
    dataset, clusters = Named([0] * len(ids), labels=labels), clusters_of(ids, [K])
    folder = tmp_path_factory.mktemp("page")
    (folder / "sheets" / "0").mkdir(parents=True)
    for cluster in range(K):
        Image.new("RGB", (300, 300)).save(folder / f"sheets/0/{cluster:03d}.jpg")
    training = TrainingHealth("bad", "collapsed", "It has.", [], None)
    write_page(
        folder,
        dataset,
        clusters,
        summarize(dataset, clusters),
        title="<i>Clusters</i>",
        sheet_columns=6,
        training=training,
    )
    return folder


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    """The page, opened as a file without a network; an error in it fails the test."""
    context = browser.new_context(offline=True, viewport={"width": 900, "height": 700})
    context.set_default_timeout(20_000)
    page, errors = context.new_page(), []
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    yield page
    context.close()
    assert errors == []


def shown(page: Any) -> list[int]:
    """The clusters on the page, in their order."""
    numbers = page.locator("article").evaluate_all("a => a.map(x => x.id.split('-').pop())")
    return list(map(int, numbers))


def status(page: Any) -> str:
    return str(page.locator("[role=status]").inner_text())


def test_the_largest_clusters_come_first_and_their_sheets_when_they_are_near(page):
    assert shown(page) == list(range(129, 81, -1))
    assert status(page) == "1\u201348 of 130 clusters"
    assert page.locator("h1").inner_text() == "<i>Clusters</i>"
    assert "Training: collapsed: It has." in page.locator(".health.bad").inner_text()
    pictures = [url for url in page.requests if url.endswith(".jpg")]
    assert 0 < len(pictures) < 48
    assert not any("names.js" in url for url in page.requests)


def test_pages_and_orders(page):
    page.locator(".on").first.click()
    assert shown(page)[0] == 81
    page.locator(".on").first.click()
    assert (len(shown(page)), page.locator(".on").first.is_disabled()) == (34, True)
    page.select_option("[name=order]", "sizes 1")
    assert shown(page)[:3] == [0, 1, 2]
    page.select_option("[name=order]", "ids 1")
    page.check("[name=compact]")
    assert shown(page) == list(range(K))


def test_a_search_finds_numbers_classes_and_files(page):
    def search(text: str, expected: str) -> list[int]:
        page.fill("[type=search]", text)
        page.wait_for_function(
            "text => document.querySelector('[role=status]').textContent === text", arg=expected
        )
        return shown(page)

    assert search("#17", "1\u20131 of 1, out of 130 clusters") == [17]
    assert search("pear", "1\u201319 of 19, out of 130 clusters")[-1] == 0
    assert search("no such", "no cluster fits") == []
    assert search("IMG_00002", "1\u20131 of 1, out of 130 clusters") == [1]
    assert page.locator(".match").inner_text() == "img_00002.jpg"
    assert search("img_0000", "1\u20134 of 4, out of 130 clusters") == [3, 2, 1, 0]
    assert page.locator(".match").first.inner_text().endswith("img_00008.jpg and 1 more")
    page.click("[name=clear]")
    assert status(page) == "1\u201348 of 130 clusters"


def test_filters_by_class_and_size(page):
    page.select_option("[name=class]", label="<b>pear</b> (19)")
    assert set(shown(page)) == set(range(0, K, 7))
    page.fill("[name=least]", "50")
    page.fill("[name=most]", "64")
    assert shown(page) == [63, 56, 49]
    page.click("[name=clear]")
    bar = page.get_by_role("button", name="64 clusters of 64\u2013127 images")
    bar.focus()
    page.keyboard.press("Enter")
    assert (shown(page)[0], bar.get_attribute("aria-pressed")) == (126, "true")
    assert status(page) == "1\u201348 of 64, out of 130 clusters"
    page.keyboard.press("Enter")
    assert status(page) == "1\u201348 of 130 clusters"


def test_a_link_leads_to_a_cluster_of_any_page(page, folder):
    page.goto(f"{(folder / 'index.html').as_uri()}#set-0-cluster-5")
    page.wait_for_selector("article.chosen")
    assert page.locator("article.chosen h3").inner_text() == "Cluster 5"


@pytest.mark.parametrize("width", [320, 1600])
def test_nothing_sticks_out(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.check("[name=compact]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
