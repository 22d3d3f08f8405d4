"""The two sets of weights of a run with a teacher: which is read, evaluated, written and named."""

from pathlib import Path

import pytest
import torch
from conftest import TINY
from tiny_runs import saved, train

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import CheckpointError, ConfigError
from ssl_platform.evaluation.results import Results
from ssl_platform.evaluation.results_table import results_table
from ssl_platform.zoo.cli import main
from ssl_platform.zoo.trained_run import TrainedRun
from ssl_platform.zoo.weights import read_weights

KNN = ["config=benchmark/knn/folder", "task.k=[5]", "baselines=false"]
SMALL = ["data.train.num_samples=64", "data.val.num_samples=32", "data.num_workers=0"]
TEACHER = ["teacher=ema", "teacher.momentum=0.5", "evaluate=teacher"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluates its teacher; not to be written to."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    train([*TINY, "num_epochs=2", "~hooks.knn", *TEACHER], folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("asked", "whose"), [(None, "teacher"), ("teacher", "teacher"), ("student", "student")]
)
def test_the_weights_that_are_asked_for_are_read_and_the_others_known(asked, whose, taught):
    state = saved(taught, 2)["model"]
    prefix = "teacher." if whose == "teacher" else ""
    weights = read_weights(str(taught), asked)
    assert (weights.whose, weights.shown) == (whose, f"{taught} ({whose})")
    for name, value in weights.trunk.items():
        assert torch.equal(value, state[f"{prefix}trunk.{name}"])
        assert weights.origin[f"trunk.{name}"] == f"{prefix}trunk.{name}"
    assert state.keys() == {*weights.origin.values(), *weights.unused}
    head = state[f"{prefix}heads.prototypes.prototypes.0.weight"]
    assert torch.equal(weights.prototype_head().prototypes[0].weight, head)
    model = TrainedRun.open(str(taught)).model(asked)
    assert torch.equal(model.trunk.conv1.weight, state[f"{prefix}trunk.conv1.weight"])
    assert model.teacher is None


def test_a_file_of_a_checkpoint_has_the_student(taught):
    weights = read_weights(str(taught / "checkpoints" / "step_00000008" / "shared.pt"))
    assert set(weights.unused.values()) >= {"a teacher, which is read from the run's directory"}
    assert weights.whose == ""
    student = read_weights(str(taught), "student")
    assert torch.equal(weights.trunk["conv1.weight"], student.trunk["conv1.weight"])


def test_where_there_is_no_choice_it_is_one_line(pretrained, taught):
    message = "weights=teacher: this run has no teacher, which teacher=ema trains"
    with pytest.raises(CheckpointError) as error:
        read_weights(str(pretrained), "teacher")
    assert str(error.value) == f"{pretrained}: {message}"
    assert read_weights(str(pretrained), "student").whose == ""
    for config in (["config=benchmark/linear/folder", "trunk=resnet18"], KNN):
        with pytest.raises(ConfigError) as refused:
            compose([*config, "data=shapes", f"checkpoint={pretrained}", "weights=teacher"])
        assert refused.value.problems == [f"checkpoint={pretrained}: {message}"]
    file = taught / "checkpoints" / "step_00000008" / "shared.pt"
    with pytest.raises(CheckpointError, match="weights=student: only a run has that choice; leave"):
        read_weights(str(file), "student")


def test_an_evaluation_says_whose_figures_they_are_and_keeps_features_apart(taught):
    def evaluate(*more: str) -> Results:
        job = [*KNN, "data=shapes", *SMALL, f"checkpoint={taught}", "launch.threads=1", *more]
        return ssl_platform.run(compose(job))

    teacher, student = evaluate("name=a"), evaluate("name=b", "weights=student")
    assert (teacher.weights["whose"], student.weights["whose"]) == ("teacher", "student")
    assert f"weights: {taught} (ssl_platform, teacher)" in teacher.table()
    folders = {path.name[-7:] for path in Path("runs/features").iterdir()}
    assert folders == {"teacher", "student"}
    lines = "\n".join(results_table([Path("runs")]))
    assert f"{taught} (teacher)" in lines and f"{taught} (student)" in lines


def test_a_linear_evaluation_starts_from_the_weights_that_are_asked_for(taught):
    job = ["config=benchmark/linear/folder", "data=shapes", *SMALL, "data.batch_size=32"]
    job += [f"checkpoint={taught}", "num_epochs=1", "baselines=false", "launch.threads=1"]
    for more, whose in (([], "teacher."), (["weights=student", "teacher=ema"], "")):
        folder = Path("runs") / f"linear-{whose}"
        train(job, folder, *more)
        model = torch.load(next(folder.glob("checkpoints/*/shared.pt")), weights_only=True)["model"]
        before = saved(taught, 2)["model"]
        assert torch.equal(model["trunk.conv1.weight"], before[f"{whose}trunk.conv1.weight"])
    assert torch.equal(model["teacher.trunk.conv1.weight"], model["trunk.conv1.weight"])
    assert Results.read(folder).protocol.endswith(", of the student")
    assert Results.read(folder).weights["whose"] == "student"


def test_clusters_are_those_of_the_weights_that_are_asked_for(taught):
    for whose in ("student", "teacher"):
        job = ["config=analysis/clusters", f"checkpoint={taught}", "data.num_workers=0"]
        job += [f"output_dir=clusters-{whose}", f"weights={whose}"]
        ssl_platform.run(compose(job))
        assert f"({whose})" in Path(f"clusters-{whose}", "index.html").read_text()


def test_exports_and_cards_name_whose_weights_they_are(taught, capsys):
    from safetensors.torch import load_file

    state = saved(taught, 2)["model"]
    for option, whose in ((["--weights", "student"], "student"), ([], "teacher")):
        target = ["--format", "safetensors", "-o", f"{whose}.safetensors"]
        assert main(["export", str(taught), *target, *option]) == 0
        prefix = "teacher." if whose == "teacher" else ""
        weight = load_file(f"{whose}.safetensors")["conv1.weight"]
        assert torch.equal(weight, state[f"{prefix}trunk.conv1.weight"])
        assert f"| from | `{taught} ({whose})`" in Path(f"{whose}.md").read_text()
    assert main(["verify", str(taught), "--weights", "teacher"]) == 0
    assert f"{taught} (teacher)" in capsys.readouterr().out
