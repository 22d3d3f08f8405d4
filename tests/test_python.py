"""Runs from Python: `ssl_platform.run` checks what it is handed, as the command line does."""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import ssl_platform
from ssl_platform.cli import main
from ssl_platform.config import compose
from ssl_platform.engine import loop
from ssl_platform.errors import ConfigError, StopRequested
from ssl_platform.launch import ranks

SHORT = ["num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn", "~hooks.crops"]


@pytest.fixture
def config(tiny, tmp_path, monkeypatch):
    """A checked config as plain values; nothing lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    return OmegaConf.to_container(compose([*tiny, *SHORT]))


def refused(cfg):
    """The lines of a refusal, which leaves nothing behind."""
    with pytest.raises(ConfigError) as caught:
        ssl_platform.run(cfg)
    assert os.listdir() == []
    return caught.value.problems


EDITS = {
    "num_epochs": ("x", "num_epochs=x: should be a valid integer, unable to parse string as an"),
    "num_epochz": (1, "num_epochz=1: the config has no such option; did you mean 'num_epochs'?"),
    "precision": (None, "precision: the config needs a value"),
    "name": (None, "name: the config needs a value (str); set name=..."),
    "task": (None, "task: which job? choose from CachedLinear, "),
    "seed": (-1, "seed=-1: from 0 to 9223372036854775807"),
    "_target_": ("os.system", "_target_=os.system: nothing is called from a config"),
    "plugins": (["no_such_module"], "plugins=['no_such_module']: No module named"),
    "output_dir": (3, "output_dir=3: should be a valid string"),
    "optimizer": (np.float64(1), "optimizer: Value 'float64' is not a supported primitive type"),
}


@pytest.mark.parametrize("key", EDITS)
def test_an_edited_config_is_refused_with_the_lines_of_the_command_line(key, config):
    value, told = EDITS[key]
    (line,) = refused(config | {key: value})
    assert line.startswith(told)


def test_edits_of_a_composed_config_are_checked_too(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = compose([*tiny, *SHORT])
    cfg.loss.epsilon = -1.0
    assert refused(cfg) == ["loss.epsilon=-1.0: above 0, e.g. 0.05"]
    del cfg.loss.epsilon
    assert refused(cfg) == ["loss.epsilon: SwAVLoss needs a value (float); set loss.epsilon=..."]
    OmegaConf.update(cfg, "loss.epsilon", "${no.such.key}", force_add=True)
    assert refused(cfg) == [
        "loss.epsilon=${no.such.key}: there is no such key in this config; set loss.epsilon=..."
    ]


def test_a_config_that_lacks_a_key_is_told_which(config):
    del config["precision"]
    (line,) = refused(config)
    assert line.startswith("precision: the config needs a value (Literal['auto', 'float32', ")


@pytest.mark.parametrize("given", ["config=x", None, [1], 3])
def test_what_is_no_config_is_told_what_would_be_one(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = refused(given)
    assert line.startswith("run() takes a config of ssl_platform.config.compose, or a mapping like")


def test_a_mapping_that_holds_itself_is_one_line(config):
    config["trunk"] = config
    (line,) = refused(config)
    assert "recursion" in line


def test_plain_mappings_run_as_they_are(config):
    before = OmegaConf.to_yaml(config)
    results = ssl_platform.run(config)
    assert results["images_per_second"] > 0
    assert OmegaConf.to_yaml(config) == before


def test_an_open_script_that_is_read_again_by_every_process_is_told_where_to_put_its_lines(
    config, monkeypatch
):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as caught:
        ssl_platform.run(config)
    assert str(caught.value) == (
        "launch.processes: every process reads this script again as it starts; put the lines that "
        "run something below if __name__ == '__main__':"
    )


@pytest.mark.parametrize(("path", "is_read_again"), [("<stdin>", False), (__file__, True)])
def test_what_was_piped_into_python_is_not_read_again_by_every_process(
    path, is_read_again, monkeypatch
):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", path, raising=False)
    with ranks._without_unreadable_main():
        assert hasattr(main, "__file__") == is_read_again
    assert main.__file__ == path


def test_eight_functions_lead_from_the_command_line_to_a_step(tiny, tmp_path, monkeypatch):
    stacks = []

    def train_step(batch, run):
        package = Path(ssl_platform.__file__).parent
        frames = traceback.extract_stack()[:-1]
        stacks.append([f.name for f in frames if Path(f.filename).is_relative_to(package)])
        raise StopRequested("seen", 75)

    monkeypatch.setattr(loop, "train_step", train_step)
    main([*tiny, *SHORT, "launch.processes=1", f"output_dir={tmp_path / 'run'}"])
    assert stacks == [["main", "run_here", "launch", "work", "__call__", "train", "train_epoch"]]
