"""Runs of Weights & Biases and of MLflow: real packages, offline, over a killed process."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from forked import tool
from launched import eventually
from run_infos import info
from tiny_runs import BY_THE_CLOCK, refused, without
from wandb_files import history, records

from ssl_platform.loggers.mlflow import MLflow
from ssl_platform.loggers.wandb import WandB

KILLED_AFTER, RESUMED_FROM = 6, 4  # of 12 steps


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """The directory of a run that was killed and started again."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    folder = tmp_path_factory.mktemp("services")
    places = [f"output_dir={folder}/run", f"loggers.mlflow.tracking_uri={folder}/ml runs"]
    command = [*without(TINY, "hooks.knn"), "~hooks.knn", *places, "loggers=[wandb,mlflow]"]
    command += ["loggers.wandb.mode=offline", "plugins=[kill_hook]"]
    strike = f"step: {KILLED_AFTER}, rank: 0, moment: step, victim: all, signal: SIGKILL"
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    tool(*command, f"+hooks.kill={{name: Kill, {strike}}}", cwd=folder, env=path)
    assert not (folder / "run/summary.json").exists()
    done = tool(*command, cwd=folder, env=path)
    assert done.returncode == 0 and "hears no more" not in done.stderr, done.stderr
    return folder / "run"


def told(run: Path) -> list[dict[str, float]]:
    """The figures of a run, as ``metrics.jsonl`` has them."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def file_store(monkeypatch):
    """MLflow reads folders, as the logger has it do."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def steady(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name not in BY_THE_CLOCK}


def test_wandb_has_one_run_of_both_processes_with_all_figures(resumed):
    files = sorted(resumed.glob("wandb/offline-run-*/*.wandb"))
    run_id = (resumed / "wandb/run_id").read_text()
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    before, after = map(history, files)
    assert [line for line in after if "loss" in line or "health/effective_rank" in line] == [
        line for line in told(resumed) if line["step"] > RESUMED_FROM
    ]
    of_steps = [steady(line) for line in told(resumed) if "loss" in line]
    heard = [steady(line) for line in before if "loss" in line]
    assert heard == of_steps[: len(heard)] and len(heard) >= RESUMED_FROM
    assert any("crops.sha256" in line for line in before)


def test_wandb_draws_by_our_step_and_knows_config_and_results_but_no_command_line(resumed):
    last = sorted(resumed.glob("wandb/offline-run-*/*.wandb"))[-1]
    found = {record.WhichOneof("record_type"): record for record in records(last)}
    assert (found["metric"].metric.glob_name, found["metric"].metric.step_metric) == ("*", "step")
    config = {i.key: json.loads(i.value_json) for i in found["run"].run.config.update}
    assert config["optimizer"]["lr"] == 0.12 and found["run"].run.resume
    assert found["exit"].exit.exit_code == 0
    everything = b"".join(file.read_bytes() for file in resumed.glob("wandb/*/*.wandb"))
    assert b"output_dir=" not in everything and b"images_per_second" in everything


def test_mlflow_has_one_run_with_all_figures_config_and_files(resumed, file_store):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(resumed.parent / "ml runs").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'ssl_platform'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (
        (resumed / "mlflow/run_id").read_text(),
        "FINISHED",
    )
    for name in ("loss", "lr", "uniform_loss", "images_per_second", "health/effective_rank"):
        points = client.get_metric_history(run.info.run_id, name)
        latest = {point.step: point.value for point in points}
        lines = {line["step"]: line[name] for line in told(resumed) if name in line}
        assert latest.keys() == lines.keys()
        assert name in BY_THE_CLOCK or latest == lines
    assert run.data.params["optimizer.lr"] == "0.12"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "crops.png", "summary.json"}


def test_a_parameter_that_a_resume_changes_stays_and_the_config_is_the_new_one(
    tmp_path, file_store
):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    from mlflow.tracking import MlflowClient

    for config in ({"lr": 1, "text": "x" * 9000}, {"lr": 2, "new": [1], "a:b*c": ""}):
        logger = MLflow(enabled=True, tracking_uri=str(tmp_path / "ml"), experiment="mine")
        logger.start(info(tmp_path, config=config))
        logger.figures(1, 0, {"val/head/top1": float("nan")})
        logger.close(None)
    run = MlflowClient((tmp_path / "ml").as_uri()).get_run(logger.run_id)
    assert run.data.params == {"lr": "1", "text": "x" * 6000, "new": "[1]", "a:b_c": ""}
    assert run.info.status == "KILLED"
    (file,) = tmp_path.glob("ml/*/*/artifacts/config.yaml")
    assert "lr: 2" in file.read_text()


def some_embeddings() -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    return rng.standard_normal((5, 3)).astype(np.float32), images, ["a", "b", "a", "c", "c"]


def test_mlflow_keeps_embeddings_for_the_projector(tmp_path, file_store):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    logger = MLflow(enabled=True, tracking_uri=str(tmp_path / "ml"), experiment="mine")
    logger.start(info(tmp_path))
    logger.embeddings("sample", *some_embeddings(), 4)
    logger.close({})
    (folder,) = tmp_path.glob("ml/*/*/artifacts/embeddings")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    files = {f"projector_sample/{name}" for name in ("tensors.tsv", "metadata.tsv", "sprite.png")}
    assert names == {"projector_config.pbtxt", *files}
    vectors = np.loadtxt(folder / "projector_sample/tensors.tsv")
    np.testing.assert_allclose(vectors, some_embeddings()[0], rtol=1e-5)


def test_wandb_keeps_embeddings_as_a_table(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    logger = WandB(**WANDB, mode="offline")
    logger.start(info(tmp_path))
    vectors, images, labels = some_embeddings()
    logger.embeddings("sample", vectors, images, labels, 4)
    logger.embeddings("unlabelled", vectors, images, [], 4)
    logger.close({})
    (file,) = tmp_path.glob("wandb/offline-run-*/files/media/table/sample*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == ["image", "label", "d0", "d1", "d2"]
    assert [row[1] for row in table["data"]] == labels
    np.testing.assert_allclose([row[2:] for row in table["data"]], vectors, rtol=1e-6)
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    # another process writes it
    assert eventually(lambda: any("sample_embeddings.nrows" in line for line in history(log)))


WANDB = {"enabled": True, "project": "p", "entity": None, "group": None, "tags": []}


def test_what_is_missing_is_said_by_the_check(monkeypatch):
    for module in ("wandb", "mlflow"):
        monkeypatch.setattr(f"ssl_platform.loggers.{module}.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"enabled=true: wandb is not installed; pip install 'ssl"):
        WandB(**WANDB, mode="auto")
    with pytest.raises(ValueError, match=r"enabled=true: mlflow is not installed; pip install 'ss"):
        MLflow(enabled=True, tracking_uri=None, experiment="mine")
    WandB(**{**WANDB, "enabled": False}, mode="online")


def test_values_that_the_services_do_not_take_are_said_by_the_check(monkeypatch, tiny, tmp_path):
    monkeypatch.setattr(
        "ssl_platform.loggers.mlflow.find_spec", lambda name: {"mlflow": 1}.get(name)
    )
    values = {
        "wandb": ["project=a/b", "mode=onlin"],
        "mlflow": ["tracking_uri=localhost:5000", "experiment=''"],
    }
    changes = [f"loggers.{name}.{v}" for name, vs in values.items() for v in vs]
    assert refused(tiny, tmp_path, *changes[:1], *changes[2:3]) == [
        r"loggers.wandb.project=a/b: 1 to 128 characters, none of / \ # ? % :",
        "loggers.mlflow.tracking_uri=localhost:5000: write http://localhost:5000",
    ]
    assert [line.partition(":")[0] for line in refused(tiny, tmp_path, changes[1], changes[3])] == [
        "loggers.wandb.mode=onlin",
        "loggers.mlflow.experiment=",
    ]
    assert refused(
        tiny, tmp_path, "loggers=mlflow", "loggers.mlflow.tracking_uri=sqlite:///mlflow.db"
    ) == [
        "loggers.mlflow.tracking_uri=sqlite:///mlflow.db: a data base needs the whole package; pip "
        "install mlflow"
    ]


def test_online_without_a_key_is_said_by_the_check(monkeypatch):
    monkeypatch.setattr("ssl_platform.loggers.wandb.find_spec", lambda name: name)
    monkeypatch.setattr("ssl_platform.loggers.wandb._has_key", lambda: False)
    with pytest.raises(ValueError, match="mode=online: there is no key; run 'wandb login', set WA"):
        WandB(**WANDB, mode="online")
