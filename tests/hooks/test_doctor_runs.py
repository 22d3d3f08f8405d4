"""The doctor in tiny runs: what it tells, that it can end one, and that it changes nothing."""

import json
from pathlib import Path

import pytest
from tiny_runs import lines, losses, stopped_at, train, without

from ssl_platform.errors import CollapseError
from ssl_platform.hooks import assignments, health
from ssl_platform.hooks.signs import LABEL_SIGNS

# embeddings of one entry are on a line from the first step on
LINE = ["heads.prototypes.out_dim=1", "hooks.health.every_steps=1"]


@pytest.fixture(autouse=True)
def _judged_at_once(monkeypatch):
    monkeypatch.setattr(health, "FIRST_STEPS", 0)


def warnings_of(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "ssl_platform.hooks.diagnosis"]


def test_a_collapse_is_told_once_then_in_a_line_an_epoch_and_is_in_the_summary(
    stoppable, tmp_path, caplog
):
    results = train([*stoppable, *LINE], tmp_path)
    first, *others = warnings_of(caplog)
    assert first.startswith(
        "step 3: the embeddings of all images lie on one line (1.00 dimensions)"
    )
    assert "; try first " in first
    assert [line.partition(":")[0] for line in others] == ["step 8", "step 12"]
    assert all("still so, since step 1: the embeddings" in line for line in others)
    assert not any("try" in line for line in others)
    assert ("line", 1) in [(entry["sign"], entry["since_step"]) for entry in results["doctor"]]
    assert json.loads((tmp_path / "summary.json").read_text())["doctor"] == results["doctor"]


def test_a_run_ends_when_it_is_to_stop_at_a_sign(stoppable, tmp_path):
    with pytest.raises(CollapseError) as caught:
        train(
            [*stoppable, *LINE, "hooks.health.stop=[line]"],
            tmp_path,
            "save.every_steps=2",
            "save.asynchronous=false",
        )
    told = str(caught.value)
    assert "stopped at step 3, as hooks.health.stop asks for the sign 'line'" in told
    assert "step_00000002 is from before" in told


def test_a_resumed_run_says_what_an_unbroken_one_does(stoppable, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    expected = train([*stoppable, *LINE], unbroken)
    stopped_at(6, [*stoppable, *LINE], broken)
    results = train([*stoppable, *LINE], broken)
    assert results["doctor"] == expected["doctor"]
    assert figures_of_epochs(broken) == figures_of_epochs(unbroken)
    assert len(figures_of_epochs(unbroken)) == 3


def figures_of_epochs(output_dir: Path) -> list[dict]:
    return [line for line in lines(output_dir) if any("health/" in key for key in line)]


def test_looking_changes_no_bit_of_a_training(stoppable, tmp_path):
    train([*stoppable, "hooks.health.every_steps=1"], tmp_path / "watched", "data.micro_batch=8")
    train([*stoppable, "~hooks.health"], tmp_path / "alone", "data.micro_batch=8")
    assert losses(tmp_path / "watched") == losses(tmp_path / "alone")


@pytest.mark.parametrize(("judged_from", "signs"), [(100, set()), (0, {"random labels"})])
def test_labels_are_compared_with_chance_once_a_run_has_begun(
    judged_from, signs, stoppable, tmp_path, monkeypatch
):
    monkeypatch.setattr(assignments, "FIRST_STEPS", judged_from)
    options = ["config=pretrain/deepcluster_v2/quickstart", *without(stoppable[1:], "loss.")]
    options += ["heads.prototypes.num_prototypes=[4]"]
    results = train(options, tmp_path)
    of_labels = [line for line in lines(tmp_path) if "assignments/nmi" in line]
    assert [line["epoch"] for line in of_labels] == [2, 3]
    assert all(0 <= line["assignments/nmi_chance"] < 0.2 for line in of_labels)
    assert {entry["sign"] for entry in results["doctor"]} & set(LABEL_SIGNS) == signs
