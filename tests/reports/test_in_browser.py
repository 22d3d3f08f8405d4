"""The page in a browser: silent, offline, its map answers the pointer, by day and by night."""

import pytest
from chromium import BROWSER, WHY_NOT, evaluated
from run_pages import a_sample, page_of, some_crops

pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)

LOOK = """
  const style = (element, name) => getComputedStyle(element)[name];
  const root = document.documentElement;
  const found = {
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
    charts: document.querySelectorAll(".plot canvas").length,
    overflow: root.scrollWidth - root.clientWidth,
    ground: style(document.body, "backgroundColor"),
    axis: plots[0].axes[0].stroke(),
    smallest: Math.min(...[...document.images].map((image) => image.clientWidth)),
    broken: [...document.images].filter((image) => !image.naturalWidth).length,
  };
"""
HOVER = """
  const press = (name) => document.querySelector(`button[data-value="${name}"]`).click();
  const dot = document.querySelectorAll(".dot")[7];
  const hover = document.querySelector(".hover");
  const place = () => [parseFloat(dot.style.left), parseFloat(dot.style.top)];
  const tone = () => style(dot, "backgroundColor");
  found.hidden_first = hover.hidden;
  const of_tsne = place();
  const of_class = tone();
  press("PCA");
  press("prototype");
  await new Promise((done) => setTimeout(done, 1000));
  found.moved = String(of_tsne) !== String(place());
  found.recoloured = of_class !== tone();
  const box = dot.getBoundingClientRect();
  const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
  document.querySelector(".field").dispatchEvent(new PointerEvent("pointermove", at));
  found.caption = hover.textContent;
  found.thumbnail = [hover.querySelector(".tile").clientWidth, hover.hidden];
  document.querySelector(".field").dispatchEvent(new PointerEvent("pointerleave"));
  found.hidden_last = hover.hidden;
  press("pictures");
  found.picture = [dot.clientWidth, style(dot, "backgroundPosition")];
"""


def test_by_day_the_map_answers_the_pointer(tmp_path):
    page = page_of(tmp_path / "page.html", a_sample(), cropped=some_crops())
    found = evaluated(page, LOOK + HOVER + "return found;")
    assert (found["loaded"], found["broken"], found["overflow"]) == ([], 0, 0)
    assert found["charts"] == 3 and found["ground"] == "rgb(250, 250, 249)"
    assert found["smallest"] >= 96
    assert found["hidden_first"] and found["hidden_last"]
    assert found["moved"] and found["recoloured"]
    # the dot itself, or one that lies upon it
    assert found["caption"].startswith("images/") and "prototype" in found["caption"]
    assert found["thumbnail"] == [128, False]
    assert found["picture"] == [30, "-210px 0px"]  # the eighth of the first row


def test_by_night_and_on_a_telephone(tmp_path):
    page = page_of(tmp_path / "page.html", a_sample(), cropped=some_crops())
    found = evaluated(page, LOOK + "return found;", width=400, is_dark=True)
    assert (found["loaded"], found["broken"], found["overflow"]) == ([], 0, 0)
    assert (found["ground"], found["axis"]) == ("rgb(18, 18, 20)", "#a0a0a9")


def test_a_page_without_figures_and_pictures(tmp_path):
    empty = page_of(tmp_path / "empty.html", None, lines=[])
    found = evaluated(empty, "return [document.querySelectorAll('.plot, .tile, img').length];")
    assert found == [0]
