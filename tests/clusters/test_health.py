"""What the page is told of the training, and what the figures say against clusters."""

import json
from pathlib import Path

import numpy as np
import pytest
from cluster_samples import Colours, clusters_of

from ssl_platform.clusters.health import training_health
from ssl_platform.clusters.summary import summarize

SIGN = {"sign": "ln K", "text": "Stays at ln K.", "remedy": "loss.epsilon=0.03", "since_step": 60}


def health_of(run: Path, results: object):
    (run / "summary.json").write_text(json.dumps(results))
    return training_health(run, run / "clusters")


@pytest.mark.parametrize(
    ("kind", "signs", "level"),
    [
        ("learned", [], "good"),
        ("learned", [SIGN], "doubtful"),
        ("learned little", [], "doubtful"),
        ("no proof", [], "doubtful"),
        ("collapsed", [SIGN], "bad"),
        ("a kind of later versions", [], "unknown"),
    ],
)
def test_the_level_follows_verdict_and_signs(kind, signs, level, tmp_path):
    health = health_of(tmp_path, {"verdict": {"kind": kind, "text": "So."}, "doctor": signs})
    assert (health.level, health.kind, health.text) == (level, kind, "So.")
    wanted = [{"text": "Stays at ln K.", "remedy": "loss.epsilon=0.03"}]
    assert health.signs == (wanted if signs else [])


@pytest.mark.parametrize("results", [[], {}, {"verdict": None}, {"doctor": {}}, {"verdict": "x"}])
def test_a_run_without_a_verdict_does_not_look_healthy(results, tmp_path):
    health = health_of(tmp_path, results)
    assert (health.level, health.text) == (
        "unknown",
        "This run has kept no verdict on its training.",
    )


def test_signs_count_where_there_is_no_verdict(tmp_path):
    assert health_of(tmp_path, {"doctor": [SIGN, "not a sign"]}).level == "bad"


def test_a_training_under_way_or_a_damaged_summary_has_no_verdict(tmp_path):
    assert "not come to its end" in training_health(tmp_path, tmp_path).text
    (tmp_path / "summary.json").write_text("{")
    assert training_health(tmp_path, tmp_path).level == "unknown"


def test_a_checkpoint_leads_to_its_run_and_the_report(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "elsewhere" / "clusters"
    checkpoint = run / "checkpoints" / "step_00000005"
    for path in (checkpoint, folder):
        path.mkdir(parents=True)
    assert training_health(checkpoint, folder).report is None
    (run / "report.html").touch()
    (run / "summary.json").write_text(json.dumps({"verdict": {"kind": "learned", "text": ""}}))
    health = training_health(checkpoint, folder)
    assert health.level == "good"
    assert (folder / health.report).resolve() == run / "report.html"


def signs(ids, num_clusters, labels=None, **options) -> str:
    dataset = Colours([0] * len(ids), labels=labels)
    (figures,) = summarize(dataset, clusters_of(ids, [num_clusters], **options))["sets"]
    return " ".join(figures["signs"])


def test_signs_of_collapsed_clusters():
    rng = np.random.default_rng(0)
    spread, classes = rng.permutation(np.arange(200) % 10), np.arange(200) % 4
    assert signs(spread, 10) == ""
    assert signs(spread, 10, labels=spread % 5) == ""
    assert signs([0] * 180 + [1] * 20, 10) == "One cluster holds 90% of the images."
    assert "Only 1 of 50 clusters are in use." in signs([3] * 30, 50)
    assert "rounding decides" in signs(spread, 10, scores=1e-3)
    assert "no better than permuted labels" in signs(spread, 10, labels=classes)
    assert signs([0, 0, 0, 1], 2) == ""
