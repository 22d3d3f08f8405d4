"""What a page says of a run, and that nothing of a run becomes a part of its program."""

import numpy as np
import pytest
import torch
from chromium import BROWSER, WHY_NOT, evaluated
from run_pages import Page, a_sample, page_of, some_crops

from ssl_platform.reports.curves import MOST_POINTS, charts, read_metrics
from ssl_platform.reports.groups import clusters_of, confusion_of, neighbours_of
from ssl_platform.reports.maps import maps_of
from ssl_platform.reports.pictures import picture

EVIL = '</script><script>document.title = "run"</script><b>"\'&{{ 7 * 7 }}\u2028\u202e\udcff'
SIGN = {"sign": EVIL, "text": EVIL, "remedy": EVIL, "since_step": 3}


def evil_page(folder):
    sample = a_sample(names=[EVIL] * 60, classes={0: EVIL, 1: "</style>", 2: "<!--"})
    return page_of(
        folder / "page.html",
        sample,
        run_dir=folder / EVIL.replace("/", "_"),
        config={"name": EVIL, "loss": {"name": EVIL}, "recipe": EVIL},
        results={"verdict": {"kind": "collapsed", "text": EVIL}, "doctor": [SIGN]},
        lines=[{"step": 1, EVIL: 1.0, f"{EVIL}/{EVIL}": 2.0, "loss": 1.0}],
        images=EVIL,
        missing={"crops": EVIL},
    )


def test_names_are_text_wherever_they_stand(tmp_path):
    page = Page(evil_page(tmp_path))
    assert [attrs for attrs in page.all("script") if attrs.get("type")] == [
        {"type": "application/json", "id": "data"}
    ]
    assert len(page.all("script")) == 3 and not page.all("b")
    assert page.part("verdict").count('document.title = "run"') == 4
    assert "{{ 7 * 7 }}" in page.part("verdict") and "49" not in page.part("verdict")
    assert "\u202e" not in page.source and "\u2028" not in page.source
    assert EVIL[:30] in page.data["captions"][0]


@pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)
def test_names_run_nothing_in_a_browser(tmp_path):
    title, bold = evaluated(
        evil_page(tmp_path), "return [document.title, document.querySelectorAll('b').length];"
    )
    assert title.endswith(": report of a training") and bold == 0


@pytest.mark.parametrize("kind", ["learned", "learned little", "collapsed", "no proof"])
def test_the_verdict_comes_first(kind, tmp_path):
    results = {"verdict": {"kind": kind, "text": "a reason"}, "doctor": []}
    page = Page(page_of(tmp_path / "page.html", None, results=results))
    assert page.part("verdict") == f"{kind.capitalize()} a reason"
    (verdict,) = page.all("section", id="verdict")
    assert kind.replace(" ", "-") in verdict["class"].split()


def test_while_it_trains_the_doctors_signs_are_shown(tmp_path):
    sign = {"sign": "uniform", "text": "the loss is ln K", "remedy": "loss.epsilon=0.03"}
    page = Page(
        page_of(tmp_path / "page.html", None, epoch=2, num_epochs=6, results={"doctor": [sign]})
    )
    told = page.part("verdict")
    assert told.startswith("Not at its end Epoch 3 of 6, step 30.")
    assert told.endswith("uniform the loss is ln K loss.epsilon=0.03")


def test_a_run_that_is_older_than_verdicts_is_judged_by_its_results(tmp_path):
    scores = {
        "trained": {"top1": 84.0},
        "random init": {"top1": 24.0},
        "raw pixels": {"top1": 50.0},
    }
    knn = {"labels": 1000, "queries": 5000, "k": 20, **scores}
    page = Page(page_of(tmp_path / "page.html", None, results={"knn": knn}))
    assert page.part("verdict").startswith("Learned") and "84.0" in page.part("verdict")


def test_a_classifier_has_its_scores_in_place_of_a_verdict(tmp_path):
    best = {"linear": {"epoch": 9, "top1": 71.25, "top5": 90.0}}
    results = {"evaluation": {"protocol": "linear", "best": best}}
    page = Page(page_of(tmp_path / "page.html", None, results=results))
    told = "linear. linear: top1 71.2 %, top5 90.0 % in its best epoch, 9"
    assert page.part("verdict") == f"Accuracy {told}"


def test_without_labels_and_prototypes_the_features_are_clustered(tmp_path):
    sample = a_sample(num_prototypes=None, labels=np.full(60, -1), classes={})
    page = Page(page_of(tmp_path / "page.html", sample))
    assert "3 clusters of k-means" in page.part("prototypes")
    assert "no labels" in page.part("confusion") and "Green" not in page.part("neighbours")
    assert set(page.data["colours"]) == {"cluster"}
    clusters = clusters_of(sample)
    assert clusters is not None and sorted(clusters.sizes) == [20, 20, 20]


def test_of_3000_prototypes_the_largest_are_shown(tmp_path):
    directions = torch.nn.functional.normalize(torch.randn(3000, 5), dim=1)
    page = Page(page_of(tmp_path / "page.html", a_sample(200, prototypes=directions)))
    assert page.part("prototypes").count("Prototype ") == 24
    assert "of 3,000 prototypes are nearest" in page.part("prototypes")
    assert len(page.source) < 1e6


def test_neighbours_leave_the_image_itself_out():
    features = torch.eye(5).repeat_interleave(12, dim=0)  # twelve equal images of each kind
    for query, nearest in neighbours_of(a_sample(features=features)):
        others = [index for index, _ in nearest]
        assert query not in others and {o // 12 for o in others} == {query // 12}


def test_a_table_of_classes_and_the_pairs_of_many_classes():
    found = confusion_of(a_sample())
    assert found is not None and np.allclose(np.sum(found["table"], axis=1), 1)
    assert np.trace(found["counts"]) / 60 == found["accuracy"] > 0.9
    many = confusion_of(a_sample(labels=np.arange(60), classes={k: f"c{k}" for k in range(60)}))
    assert many is not None and many["num_classes"] == 60 and many["accuracy"] == 0
    assert 0 < len(many["pairs"]) <= 20
    assert confusion_of(a_sample(classes={0: "all"})) is None


@pytest.mark.parametrize("num_images", [1, 2, 9])
def test_few_images_have_a_page(num_images, tmp_path):
    page = Page(page_of(tmp_path / "page.html", a_sample(num_images)))
    assert len(page.data["captions"]) == num_images
    assert bool(page.data["maps"]) == (num_images == 9)


@pytest.mark.parametrize("features", [torch.ones(20, 4), torch.zeros(20, 1)])
def test_a_map_of_equal_features_is_finite(features):
    for points in maps_of(features, with_neighbours=True).values():
        assert np.isfinite(points).all() and 0 <= points.min() <= points.max() <= 1


def test_lines_that_come_twice_count_once_and_broken_ones_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 5}', '{"step": 2, "loss": 4}', '{"step": 3, "loss": NaN}']
    lines += [
        '{"step": 2, "loss": 3}',
        '{"step": 2, "knn/top1": 50}',
        '{"step": 4, "lo',
        "[]",
        "{}",
    ]
    path.write_text("\n".join(lines))
    assert read_metrics(path) == [{"step": 1, "loss": 5}, {"step": 2, "loss": 3, "knn/top1": 50}]


def test_long_curves_are_averaged():
    lines = [{"step": step, "loss": float(step)} for step in range(1, 4001)]
    (chart,) = charts(lines, {})
    assert len(chart["x"]) == MOST_POINTS and chart["x"][-1] == 4000
    assert np.mean(chart["series"][0]["values"]) == pytest.approx(2000.5)


@pytest.mark.parametrize(
    ("shape", "width", "height"),
    [
        ((28, 28, 1), 112, 112),
        ((16, 16, 3), 96, 96),
        ((400, 300, 3), 144, 192),
        ((4, 96, 4), 384, 16),
    ],
)
def test_small_images_are_enlarged_by_whole_factors(shape, width, height):
    shown = picture(np.zeros(shape, np.uint8), "")
    assert (shown.width, shown.height) == (width, height)
    assert len(some_crops()) == 4
