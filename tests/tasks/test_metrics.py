"""Every evaluation takes the same metrics: those of the package and one of the guide."""

import csv
import json
import re
from pathlib import Path

import pytest
from conftest import TINY
from forked import tool
from tiny_runs import saved
from voc_tree import a_voc_tree

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import ConfigError
from ssl_platform.evaluation.results import Results

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"
CROP = ["data.eval_transform.resize=16", "data.eval_transform.size=16"]
SHAPES = ["data=shapes", "data.train.num_samples=100", "data.val.num_samples=50", *CROP]
FEATURES = ["pca_components=4", "cache.folder=cache"]
TRAINED = [
    *SHAPES, "num_epochs=1", "data.batch_size=50", "data.num_workers=0", "precision=float32",
    "save.every_epochs=1", "baselines.pca_components=4", "baselines.cache.folder=cache",
]  # fmt: skip
EVALUATIONS = {
    "benchmark/knn/folder": [*SHAPES, *FEATURES, "task.k=[5]"],
    "benchmark/linear/cached/folder": [
        *SHAPES, *FEATURES, "task.sgd=null", "task.lbfgs=null", "task.ridge.l2=[1.0,0.1]",
    ],
    "benchmark/linear/folder": TRAINED,
    "benchmark/semi_supervised/folder": [*TRAINED, "train_fraction=0.5"],
    "benchmark/fine_tune/folder": TRAINED,
}  # fmt: skip
MINE = [
    "plugins=[my_metric]",
    "metrics=full",
    "+metrics.rank={name: RankOfTruth, by_class: false}",
    "+metrics.ranks={name: RankOfTruth, by_class: true}",
]
FIGURES = ["top1", "top5", "mean_class", "macro_f1", "rank"]
EACH = ("per_class", "ranks")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the metric of the guide."""
    monkeypatch.chdir(tmp_path)
    (of_guide,) = re.findall(r"```python\n(@METRICS.*?)```", GUIDE.read_text(), re.S)
    assert len(of_guide.strip().splitlines()) <= 15
    imports = "import torch\nfrom torch import Tensor\nfrom ssl_platform.registry import METRICS\n"
    Path("my_metric.py").write_text(imports + of_guide)
    return tmp_path


def run(config: str, *overrides: str) -> str:
    done = tool(f"config={config}", *overrides, "launch.threads=1")
    assert done.returncode == 0, done.stderr
    return done.stderr


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def check_files_of_classes(folder: Path, subjects: list[str], counts: list[int]) -> None:
    """A row for each class and a column for each subject; counts of each confusion matrix."""
    for metric in EACH:
        header, *rows = table(folder / "metrics" / f"{metric}.csv")
        assert header == ["class", "images", *subjects]
        assert [row[:2] for row in rows] == [[str(n), str(c)] for n, c in enumerate(counts)]
        assert all(row[2:] and float(cell) >= 0 for row in rows for cell in row[2:])
    matrices = sorted((folder / "metrics").glob("confusion_*.csv"))
    assert len(matrices) == len(subjects)
    for path in matrices:
        header, *rows = table(path)
        assert header == ["true class", *map(str, range(10))]
        assert [sum(map(int, row[1:])) for row in rows] == counts
        assert path.with_suffix(".png").exists()


@pytest.mark.parametrize("config", EVALUATIONS)
def test_an_evaluation_takes_metrics(config, pretrained, here):
    run(config, *EVALUATIONS[config], f"checkpoint={pretrained}", *MINE, "output_dir=out")
    results = Results.read(here / "out")
    for what, figures in results.figures.items():
        assert [name for name in figures if name != "epoch"] == FIGURES, what
        assert 1 <= figures["rank"] <= 10
        # each class of shapes has as many images as any other
        assert figures["mean_class"] == pytest.approx(figures["top1"])
    folder = here / "out"
    if (folder / "baselines").exists():
        check_files_of_classes(folder, [*results.figures], [5] * 10)
        folder = folder / "baselines"
        results = Results.read(folder)
    assert len(results.baselines) == 3
    subjects = [f"weights {what}" for what in results.figures]
    for baseline, figures in results.baselines.items():
        subjects += [f"{baseline} {what}" for what in figures]
        assert all(list(scores) == FIGURES for scores in figures.values())
    check_files_of_classes(folder, subjects, [5] * 10)
    files = [path.relative_to(folder).as_posix() for path in (folder / "metrics").iterdir()]
    assert sorted(results.details["files_of_classes"]) == sorted(files)


def test_svms_have_average_precisions_by_name_and_refuse_what_is_of_one_class(pretrained, here):
    path = a_voc_tree(here, num_trainval=36, num_test=24)
    voc = [f"data.path={path}", f"checkpoint={pretrained}", *FEATURES, *CROP, "task.costs=[0.1]"]
    run("benchmark/svm/voc07", *voc, "output_dir=out")
    results = Results.read(here / "out")
    assert list(results.figures["SVM"]) == ["mAP"]
    header, *rows = table(here / "out/metrics/average_precision.csv")
    assert header[:3] == ["class", "images", "weights SVM"] and len(header) == 6
    assert [row[0] for row in rows] == ["cat", "dog"]
    precisions = results.details["weights"]["AP"]
    assert [float(row[2]) for row in rows] == pytest.approx(precisions, abs=1e-4)
    with pytest.raises(ConfigError) as caught:
        compose(["config=benchmark/svm/voc07", *voc, "metrics=top1_top5"])
    assert caught.value.problems == [
        "metrics: top1, top5: of images with one class each, and these may have several; leave out "
        "with ~metrics.top1 ~metrics.top5"
    ]


def test_a_pretraining_measures_them_at_its_neighbours_and_goes_on(here):
    tiny = [o for o in TINY[1:] if not o.startswith("launch")]
    last = ["schedule.warmup_epochs=0", "launch.processes=2", *MINE, "output_dir=out"]
    run("pretrain/swav/quickstart", *tiny, *last, "num_epochs=1")
    summary = json.loads((here / "out/summary.json").read_text())["knn"]
    for features in ("trained", "random init", "raw pixels"):
        assert list(summary[features]) == FIGURES
    header, *rows = table(here / "out/metrics/knn_per_class.csv")
    assert header == ["class", "images", "trained", "random init", "raw pixels"]
    means = [sum(float(row[n]) for row in rows) / 10 for n in (2, 3, 4)]
    assert means == pytest.approx([summary[name]["mean_class"] for name in header[2:]], abs=1e-3)
    before = {path.name: path.read_bytes() for path in (here / "out/metrics").iterdir()}
    assert len(before) == 2 + 2 * 3
    for path in (here / "out/metrics").iterdir():
        path.unlink()
    run("pretrain/swav/quickstart", *tiny, *last, "num_epochs=2")
    after = {path.name: path.read_bytes() for path in (here / "out/metrics").iterdir()}
    assert after.keys() == before.keys()
    assert table(here / "out/metrics/knn_per_class.csv")[0] == header
    name = "knn_confusion_raw_pixels.csv"
    assert after[name] == before[name]


def test_two_processes_measure_what_one_does(pretrained, here):
    options = [*EVALUATIONS["benchmark/linear/folder"], f"checkpoint={pretrained}", *MINE]
    for processes in (1, 2):
        # one epoch of a head at rest: several processes would train it with other roundings
        rest = ["optimizer.lr=0", "baselines=false", f"launch.processes={processes}"]
        run("benchmark/linear/folder", *options, *rest, f"output_dir=by{processes}")
    assert Results.read(here / "by1").figures == Results.read(here / "by2").figures
    for path in (here / "by1/metrics").iterdir():
        assert path.read_bytes() == (here / "by2/metrics" / path.name).read_bytes()


def test_defaults_are_what_they_were(pretrained, here):
    for name, metrics in (
        ("pretrain/swav/quickstart", ["top1"]),
        ("benchmark/linear/folder", ["top1", "top5"]),
        ("benchmark/knn/folder", ["top1", "top5"]),
        ("benchmark/linear/cached/folder", ["top1", "top5"]),
    ):
        weights = [] if name.startswith("pretrain") else [f"checkpoint={pretrained}"]
        assert list(compose([f"config={name}", "data=shapes", *weights]).metrics) == metrics
    ssl_platform.run(compose([*TINY, "num_epochs=2", f"output_dir={here / 'run'}"]))
    assert not (here / "run/metrics").exists()
    hooks = saved(here / "run", 2, "rank_0.pt")["hooks"]
    assert set(hooks["knn"]) == {"latest", "baselines", "counts"}
