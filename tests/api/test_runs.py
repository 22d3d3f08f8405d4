"""Whole runs from Python: one call trains, one opens what was trained."""

import os

import numpy as np
import pytest
import torch
from tiny_runs import train
from zoo_files import write_released

import ssl_platform
from ssl_platform.errors import CheckpointError, ConfigError
from ssl_platform.zoo import catalogue

TINY = {
    "data.val.num_samples": 64,
    "data.train.num_samples": 128,
    "trunk.width": 8,
    "schedule.warmup_epochs": 0,
    "loss": {"queue_length": 0},
    "heads.prototypes.num_prototypes": [12],
    "hooks": {"knn": None, "crops": None, "log": {"tensorboard": False}},
    "launch": {"threads": 1},
}


def test_one_call_trains_and_returns_what_was_learned(tmp_path):
    trained = ssl_platform.pretrain("shapes", epochs=1, output_dir=tmp_path / "run", **TINY)
    assert trained.results["images_per_second"] > 0
    assert trained.output_dir == tmp_path / "run"
    assert trained.config["loss"]["queue_length"] == 0 and trained.config["seed"] == 0
    images = [np.zeros((40, 50, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)]
    features = trained.features(images)
    assert features.shape == (2, 64) and features.isfinite().all()
    embeddings, (scores,) = trained.heads["prototypes"](features)
    assert (len(embeddings), scores.shape) == (2, (2, 12))
    again = ssl_platform.load(tmp_path / "run")
    torch.testing.assert_close(again.features(images, batch_size=1), features)
    assert again.results == trained.results


def test_a_folder_is_trained_on_by_every_method(photographs, tmp_path):
    small = {"transform.crops": {"large": {"size": 24}, "small": {"size": 16}}}
    small |= {"eval_transform": {"resize": 32, "size": 24}, "batch_size": 6, "num_workers": 0}
    options = {f"data.{key}": value for key, value in small.items()}
    options |= {key: value for key, value in TINY.items() if not key.startswith("data")}
    del options["heads.prototypes.num_prototypes"], options["loss"]
    for method, sets in (("swav", 1), ("deepcluster_v2", 3), ("sela_v2", 3)):
        trained = ssl_platform.pretrain(
            photographs,
            method=method,
            epochs=1,
            trunk="resnet10_tiny",
            output_dir=tmp_path / method,
            **options,
            heads={"prototypes": {"num_prototypes": [4] * sets, "hidden_dim": 8}},
        )
        assert len(trained.heads["prototypes"].prototypes) == sets


REFUSED = {
    "data=/no/such: no such folder or list of images": ("/no/such", {}),
    "data: a folder of images, a file that lists them, or": (None, {}),
    "method=swaf: no such method; did you mean 'swav'?": ("shapes", {"method": "swaf"}),
    "epochs=0: at least 1": ("shapes", {"epochs": 0}),
    "epochs=x: should be a valid integer": ("shapes", {"epochs": "x"}),
    "output_dir=3: should be a valid string": ("shapes", {"output_dir": 3}),
    "config=pretrain/swav/x: no such config": ("shapes", {"config": "pretrain/swav/x"}),
    "sed=1: the config has no such option; did you mean 'seed'?": ("shapes", {"sed": 1}),
    "optimizer.lrr=1: LARC has no such option": ("shapes", {"optimizer": {"lrr": 1}}),
    "trunk=resnet999: no such file": ("shapes", {"trunk": "resnet999"}),
    "loss.epsilon=-1: above 0": ("shapes", {"loss.epsilon": -1}),
    "seed=<object": ("shapes", {"seed": object()}),
    "launch.slurm: pretrain() waits for its run": ("shapes", {"launch": "slurm"}),
    "plugins=['nope']: No module named": ("shapes", {"plugins": ["nope"]}),
    "--config-dir /no/such: no such directory": ("shapes", {"config_dirs": "/no/such"}),
}


@pytest.mark.parametrize("told", REFUSED)
def test_a_wrong_argument_is_one_line_and_leaves_nothing_behind(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, options = REFUSED[told]
    with pytest.raises(ConfigError) as caught:
        ssl_platform.pretrain(data, **options)
    (line,) = caught.value.problems
    assert line.startswith(told)
    assert os.listdir() == []


def test_released_weights_are_opened_with_the_transform_of_their_images(tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.MIRROR, tmp_path.as_uri())
    write_released(tmp_path / "swav_800ep_pretrain.pth.tar", "swav_resnet50")
    trained = ssl_platform.load("zoo:swav_800ep")
    assert trained.trunk.out_dim == 2048 and not trained.trunk.training
    assert list(trained.heads) == ["prototypes"]
    assert trained.transform(np.zeros((300, 400, 3), np.uint8)).shape == (3, 224, 224)
    assert trained.output_dir is None and trained.config["trunk"]["name"] == "ResNet"


@pytest.mark.parametrize(
    ("source", "error", "told"),
    [
        ("runs/none", CheckpointError, "runs/none: no such file or run"),
        ("zoo:swav_800", CheckpointError, "zoo:swav_800: no such model; did you mean"),
        (".", CheckpointError, ".: not the directory of a run"),
        ("", ConfigError, "load() takes the directory of a run, a file or zoo:NAME, not an empty"),
        (3, ConfigError, "load() takes the directory of a run, a file or zoo:NAME, not a int"),
    ],
)
def test_what_cannot_be_opened_is_one_line(source, error, told):
    with pytest.raises(error) as caught:
        ssl_platform.load(source)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


PLUGIN = """
from ssl_platform.models.resnet import ResNet
from ssl_platform.registry import TRUNKS

@TRUNKS.register()
class TrunkOfATestOfLoad(ResNet):
    pass
"""


def test_code_that_a_run_names_is_imported_only_where_the_caller_names_it(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trunk_of_load.py").write_text(PLUGIN)
    (tmp_path / "other.py").write_text(PLUGIN.replace("TrunkOfATestOfLoad", "AnotherTrunkOfLoad"))
    options = [
        "num_epochs=1",
        "schedule.warmup_epochs=0",
        "~hooks.knn",
        "trunk.name=TrunkOfATestOfLoad",
    ]
    train([*tiny, *options, "plugins=[trunk_of_load]"], tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    config.write_text(
        text.replace("TrunkOfATestOfLoad", "AnotherTrunkOfLoad").replace("trunk_of_load", "other")
    )
    with pytest.raises(CheckpointError, match=r"where you trust it, add plugins=\[other\]"):
        ssl_platform.load("run")
    assert ssl_platform.load("run", plugins=["other"]).trunk.out_dim == 64
    with pytest.raises(ConfigError, match="No module named 'none'"):
        ssl_platform.load("run", plugins=["none"])
