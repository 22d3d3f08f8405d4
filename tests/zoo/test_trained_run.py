"""Runs whose config is damaged: one line of error."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_platform.zoo.cli import main
from ssl_platform.zoo.trained_run import TrainedRun


@pytest.fixture
def run(pretrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pretrained, tmp_path / "run"))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("trunk.layers", [10**9] * 4, "far more blocks than"),
        ("trunk.width", "x", "cannot be built"),
    ],
)
def test_a_trunk_that_cannot_be_is_one_line(key, value, reason, run, capsys):
    cfg = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(cfg, key, value)
    OmegaConf.save(cfg, run / "config.yaml")
    assert main(["verify", str(run)]) == 3
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1


@pytest.mark.parametrize("key", ["1", "true", "1.5"])
def test_keys_of_a_run_that_are_no_names_are_refused_in_one_line(key, run):
    with (run / "config.yaml").open("a") as file:
        file.write(f"{key}: 2\n")
    line = r"^checkpoint=.*: the config has no such option; choose from [^\n]*$"
    with pytest.raises(ValueError, match=line):
        TrainedRun.open(str(run))


def test_the_reason_of_a_run_that_cannot_be_read_is_told_once(run):
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml cannot be read") as error:
        TrainedRun.open(str(run))
    assert str(error.value).count("checkpoint=") == 1
