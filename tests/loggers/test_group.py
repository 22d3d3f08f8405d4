"""All loggers of a run as one, and how the config chooses them."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from run_infos import info
from tiny_runs import refused

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.config.saved import shown_config
from ssl_platform.config.source import Source
from ssl_platform.console import without_secret_values
from ssl_platform.errors import ConfigError
from ssl_platform.loggers import Logger
from ssl_platform.loggers.group import LoggerGroup
from ssl_platform.registry import LOGGERS

ALL = ["console", "jsonl", "tensorboard", "wandb", "mlflow"]


class Notes(Logger):
    """Keeps what it hears; fails at a call."""

    def __init__(self, fails_at: str = "", error: Exception | None = None):
        self.heard: list[tuple] = []
        self.fails_at, self.error = fails_at, error or OSError("no network")

    def _note(self, *call: object) -> None:
        self.heard.append(call)
        if call[0] == self.fails_at:
            raise self.error

    def start(self, run):
        self._note("start", run.step)

    def figures(self, step, epoch, figures):
        self._note("figures", step, figures)

    def image(self, name, image, step):
        self._note("image", name, step)

    def sync(self):
        self._note("sync")

    def close(self, results):
        self._note("close", results)


def tell_all(group: LoggerGroup) -> None:
    group.image("early", np.zeros((1, 1, 3), np.uint8), 0)
    with group.closing({"score": np.float32(0.5)}):
        group.start(info(Path(), step=3))
        group.start(info(Path(), step=3))
        group.figures(4, 1, {"loss": 1.0})
        group.sync()


HEARD = [
    ("start", 3),
    ("image", "early", 0),
    ("figures", 4, {"loss": 1.0}),
    ("sync",),
    ("close", {"score": 0.5}),
]


@pytest.mark.parametrize("number", range(5))
def test_a_logger_that_fails_is_told_of_once_and_left_out(number, caplog):
    failing, other = Notes(HEARD[number][0]), Notes()
    tell_all(LoggerGroup({"mine": failing, "other": other}))
    assert (failing.heard, other.heard) == (HEARD[: number + 1], HEARD)
    (message,) = caplog.messages
    told = "loggers.mine failed and hears no more, the training goes on: OSError: no network ("
    assert message.startswith(told)


def test_an_error_of_the_platform_ends_the_run_and_closes_those_that_have_started():
    first, failing, last = Notes(), Notes("start", ConfigError(["no"])), Notes()
    with pytest.raises(ConfigError):
        tell_all(LoggerGroup({"first": first, "failing": failing, "last": last}))
    assert first.heard == [("start", 3), ("close", None)]
    assert (failing.heard, last.heard) == ([("start", 3)], [])


def test_a_run_that_ends_before_its_loggers_have_started_says_nothing_to_them(caplog):
    notes = Notes()
    with pytest.raises(ZeroDivisionError), LoggerGroup({"mine": notes}).closing({}):
        raise ZeroDivisionError
    assert (notes.heard, caplog.messages) == ([], [])


def chosen(*overrides: str) -> list[str]:
    cfg, problems = Source.of(["config=pretrain/swav/quickstart", *overrides]).read()
    assert not problems
    return [
        name for name, node in (cfg.get("loggers") or {}).items() if node and node.get("enabled", 1)
    ]


def test_the_default_loggers_and_how_they_are_left_out():
    assert chosen() == ALL[:3]
    assert chosen("loggers.tensorboard=null") == chosen("~loggers.tensorboard") == ALL[:2]
    assert chosen("loggers.tensorboard.enabled=false") == ALL[:2]
    assert chosen("loggers=null") == chosen("~loggers") == []
    assert chosen("loggers=wandb") == ALL[:4]
    assert chosen("loggers=[wandb, mlflow]", "~loggers.jsonl") == [*ALL[:1], *ALL[2:]]


def test_a_name_that_is_none_is_one_line():
    old = ["loggers=[wandb,tensorbord]", "hooks.log.tensorboard=false"]
    _, problems = Source.of(["config=pretrain/swav/quickstart", *old]).read()
    assert problems == [
        "loggers.tensorbord.enabled=true: there is no loggers.tensorbord; did you mean "
        "'tensorboard'?",
        "hooks.log.tensorboard=false: there is no hooks.log.tensorboard; it is "
        "loggers.tensorboard.enabled now",
    ]


@pytest.mark.parametrize("is_on", [True, False])
def test_configs_that_are_older_than_loggers_have_those_of_before(is_on, tiny, tmp_path):
    cfg = compose([*tiny, "num_epochs=2", "~hooks.knn", "~loggers", f"output_dir={tmp_path}/run"])
    cfg.hooks.log = {**cfg.hooks.log, "tensorboard": is_on}
    OmegaConf.save(cfg, tmp_path / "old.yaml")
    new = compose([f"config={tmp_path}/old.yaml"])
    assert "tensorboard" not in new.hooks.log and new.loggers.tensorboard.enabled is is_on
    ssl_platform.run(new)
    names = {path.name for path in (tmp_path / "run").iterdir() if path.name[0] != "."}
    others = {"checkpoints", "config.yaml", "crops.png", "metrics.jsonl", "summary.json"}
    assert names == others | ({"tensorboard"} if is_on else set())


@LOGGERS.register()
class Deaf(Logger):
    """Has no figures()."""


@LOGGERS.register()
class Curt(Logger):
    def figures(self, line):
        """Takes one argument."""


def test_a_logger_that_cannot_be_called_is_one_line(tiny, tmp_path):
    assert refused(tiny, tmp_path, "+loggers.a={name: Deaf}", "+loggers.b={name: Curt}") == [
        "loggers.a: Deaf has to have figures(self, step, epoch, figures)",
        "loggers.b: Curt.figures(line) is called with step, epoch, figures: "
        "def figures(self, step, epoch, figures)",
    ]


def test_loggers_get_no_secrets():
    config = {
        "api_key": "abc",
        "list": [{"password": ["a"]}],
        "url": "https://me:pw@host/x?token=a",
    }
    assert without_secret_values({**config, "lr": 0.1, "none": None, "sizes": (1, 2)}) == {
        "api_key": "*****",
        "list": [{"password": ["*****"]}],
        "url": "https://*****@host/x?token=*****",
        "lr": 0.1,
        "none": None,
        "sizes": [1, 2],
    }


def test_loggers_are_told_nothing_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("A_PLACE", "xyzzy")
    (tmp_path / "config.yaml").write_text("a: ${oc.env:A_PLACE}\nb: ${a}\nc: 1\nd: ${c}\n")
    place = "${oc.env:A_PLACE}"
    assert shown_config(tmp_path / "config.yaml") == {"a": place, "b": place, "c": 1, "d": 1}
