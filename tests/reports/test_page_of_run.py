"""The page of a run says what is in the run, at each moment, and is made again for any run."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from run_pages import Page
from tiny_runs import assert_equal, lines, refused, run_tool, saved, stopped_at, train, without

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.config.shipped import runnable
from ssl_platform.hooks.report import Report


def with_page(tiny: list[str], *more: str) -> list[str]:
    return [*without(tiny, "++hooks.report"), "hooks.report.num_images=40", *more]


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    from conftest import TINY

    folder = tmp_path_factory.mktemp("reported") / "run"
    train(with_page(TINY, "optimizer.lr=0.05"), folder)
    return folder


def made_again(run: Path, *more: str) -> None:
    options = ["config=analysis/report", f"checkpoint='{run}'", "launch.threads=1"]
    assert ssl_platform.run(compose([*options, *more])).is_file()


def test_a_page_shows_what_is_in_the_run(reported):
    page = Page(reported / "report.html")
    assert len(page.source) < 3e6
    figures = lines(reported)
    assert page.charts["Loss"]["loss"] == [line["loss"] for line in figures if "loss" in line]
    assert page.charts["Loss"]["ln K"] == pytest.approx([2.4849] * 12, abs=1e-3)
    knn = page.charts["kNN accuracy, %: top1"]
    assert knn["trained"] == [None, *(f["knn/top1"] for f in figures if "knn/top1" in f)]
    baselines = json.loads((reported / "baselines.json").read_text())
    assert knn["raw pixels"] == [baselines["raw pixels"]["top1"]] * 4
    assert {"Health", "Health: effective rank", "Learning rate"} <= page.charts.keys()
    assert len(page.all("div", **{"class": "plot"})) == len(page.charts)
    assert len(page.data["captions"]) == 40 and page.data["maps"].keys() == {"PCA", "t-SNE"}
    assert all(0 <= v <= 1 for m in page.data["maps"].values() for point in m for v in point)
    assert "40 labelled images" in page.part("confusion")
    assert "optimizer.lr 0.12 0.05" in page.part("recipe")
    assert "num_epochs 6 3" in page.part("recipe")
    assert "data.normalize" not in page.part("recipe")
    assert "torch" in page.part("machine")


def test_crops_are_as_large_as_they_can_be_looked_at(reported):
    page = Page(reported / "report.html")
    shown = page.all("img")
    assert len(shown) == 4 * (1 + 4)
    assert min(int(i[side]) for i in shown for side in ("width", "height")) >= 96
    labels = {image["alt"] for image in shown}
    assert labels == {"original 32 x 32", "large 24 x 24", "small 16 x 16"}
    assert {int(i["width"]) % 16 for i in shown if i["alt"].startswith("small")} == {0}


def test_its_commands_can_be_typed(reported):
    page = Page(reported / "report.html")
    commands = [shlex.split(line) for line in page.texts["next"].splitlines() if "config=" in line]
    arguments = [words[words.index("python") + 2 :] for words in commands]
    assert len(arguments) == 6
    for given in arguments:
        name = given[0].removeprefix("config=")
        assert name in runnable() or Path(name).is_file()
    resumed = compose([*arguments[0], "hooks.report=null"])
    assert Path(resumed.output_dir) == reported and resumed.num_epochs == 6


def test_it_changes_nothing_of_the_training(tiny, reported, tmp_path):
    train([*tiny, "optimizer.lr=0.05"], tmp_path / "run")
    with_it, without_it = saved(reported, 3), saved(tmp_path / "run", 3)
    for part in ("model", "optimizer", "loss"):
        assert_equal(with_it[part], without_it[part])
    assert lines(reported) == lines(tmp_path / "run")


def test_a_page_while_it_trains_and_after_it_goes_on(stoppable, tmp_path):
    options = with_page(stoppable, "hooks.report.looks=1")
    stopped_at(6, options, tmp_path)
    page = Page(tmp_path / "report.html")
    assert "Not at its end Epoch 2 of 3, step 4" in page.part("verdict")
    assert "first pictures are made" in page.part("map") and len(page.all("img")) == 20
    train(options, tmp_path)
    page = Page(tmp_path / "report.html")
    assert "Not at its end" not in page.source
    assert len(page.charts["Loss"]["loss"]) == 12 and len(page.data["captions"]) == 40


def test_a_run_that_ended_before_there_was_a_page_gets_one_by_its_own_command(
    tiny, pretrained, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    command = [*with_page(tiny), "num_epochs=2", "~hooks.knn"]
    train(command, run)
    page = Page(run / "report.html")
    verdict = json.loads((run / "summary.json").read_text())["verdict"]
    assert verdict["text"] in page.texts["verdict"] and "t-SNE" in page.data["maps"]
    before = (run / "report.html").read_bytes()
    train(command, run)
    assert (run / "report.html").read_bytes() == before


def test_pages_of_many_short_epochs_take_a_share_of_the_time(monkeypatch):
    hook = Report(num_images=1, looks=1, seed=0)
    hook.start, hook.start_epoch, hook.spent = 0.0, 100, 3.0
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    assert [hook._is_due(epoch) for epoch in (101, 120, 121)] == [True, True, False]
    hook.spent = 1.9
    assert hook._is_due(121)


@pytest.mark.parametrize(
    ("looks", "num_epochs", "epochs"),
    [(4, 6, {1, 3, 4, 6}), (1, 6, {6}), (4, 2, {1, 2}), (4, 100, {1, 34, 67, 100}), (3, 1, {1})],
)
def test_the_model_looks_at_the_images_a_few_times(looks, num_epochs, epochs):
    assert Report(num_images=1, looks=looks, seed=0)._epochs(num_epochs) == epochs


def test_a_run_that_is_older_than_the_page(pretrained, tmp_path):
    old = tmp_path / "an old <run> & more"
    shutil.copytree(pretrained, old)
    config = (old / "config.yaml").read_text().splitlines()
    (old / "config.yaml").write_text("\n".join(c for c in config if c[:7] != "recipe:") + "\n")
    (old / "summary.json").unlink()
    made_again(old, "task.num_images=30")
    page = Page(old / "report.html")
    assert len(page.data["captions"]) == 30 and "t-SNE" in page.data["maps"]
    assert "does not say which shipped recipe" in page.part("recipe")
    assert "has not recorded them" in page.part("machine")
    assert shlex.quote(f"checkpoint='{old}'") in page.part("next")
    assert not list(old.glob(".partial*"))


def test_images_that_are_gone_are_said_so(pretrained, photographs, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(pretrained, gone)
    text = (gone / "config.yaml").read_text()
    start, end = text.index("  train:\n    name: Shapes"), text.index("  val:\n")
    train_set = "  train:\n    name: ImageFolder\n    path: /no/such/folder\n"
    (gone / "config.yaml").write_text(text[:start] + train_set + text[end:])
    (gone / "metrics.jsonl").unlink()
    made_again(gone, f"task.page={tmp_path / 'page.html'}", f"output_dir={tmp_path / 'job'}")
    page = Page(tmp_path / "page.html")
    assert "/no/such/folder" in page.part("map") and "/no/such/folder" in page.part("crops")
    assert "metrics.jsonl cannot be read" in page.part("curves")
    assert not (gone / "report.html").exists()


def test_mistakes_are_told_before_anything_is_written(pretrained, tmp_path):
    def problems(*more: str) -> list[str]:
        return refused(["config=analysis/report", *more], tmp_path / "job")

    (line,) = problems(f"checkpoint={tmp_path / 'none'}")
    assert line.startswith(f"checkpoint={tmp_path / 'none'}: no such directory")
    (line,) = problems(f"checkpoint={pretrained}", f"task.page={tmp_path}/no/page.html")
    assert line == f"task.page={tmp_path}/no/page.html: there is no folder {tmp_path}/no"
    (line,) = problems(f"checkpoint={pretrained}", f"task.page={tmp_path}")
    assert line == f"task.page={tmp_path}: {tmp_path} is a folder; name a file"
    assert not (tmp_path / "job").exists()


def test_two_processes_make_the_same_page(tiny, tmp_path):
    options = with_page(tiny, "num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn")
    one, two = tmp_path / "one", tmp_path / "two"
    train(options, one)
    run_tool([*options, f"output_dir={two}", "launch.processes=2"])
    first, second = Page(one / "report.html"), Page(two / "report.html")
    assert first.data["captions"] == second.data["captions"]
    assert first.all("img") == second.all("img")
    assert first.part("confusion") == second.part("confusion")
    assert "processes 2" in second.part("machine")


def test_a_page_that_cannot_be_written_ends_nothing(tiny, tmp_path, caplog):
    (tmp_path / "report.html").mkdir()
    results = train(with_page(tiny, "num_epochs=2", "~hooks.knn"), tmp_path)
    assert results["verdict"]
    told = [r.getMessage() for r in caplog.records if "report.html" in r.getMessage()]
    assert len(told) == 2 and all("cannot be written" in line for line in told)
