"""Keys that lie elsewhere now: older runs have saved them, and users have written them."""

import re
import warnings
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from ssl_platform.config.overrides import key_of, parsed
from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.data.crops.older_keys import OPS, PROBABILITIES, with_ops

OLD_TENSORBOARD = "hooks.log.tensorboard"
MOVED = {OLD_TENSORBOARD: "loggers.tensorboard.enabled"}  # where a typed key is refused
# what the health of prototypes was judged by, with the values that nearly all configs had
RULES_OF_HEALTH = {"uniform_margin": 0.01, "min_used": 0.1, "from_epoch": 2}
NO_RULES = "it is gone, leave it out: docs/monitoring.md says by what a collapse is found now"
GONE = {f"hooks.health.{key}": NO_RULES for key in RULES_OF_HEALTH}  # typed keys, and why
TRAIN_FILE = CONFIG_DIR / "task" / "train.yaml"
HEALTH_FILE = CONFIG_DIR / "hooks" / "default.yaml"
TRANSFORM = "data.transform"
OLD_KEY = re.compile(rf"{re.escape(TRANSFORM)}\.({'|'.join(OPS)})(\.\w+)?")
NEW_KEY = re.compile(rf"{re.escape(TRANSFORM)}\.ops\.({'|'.join(OPS)})(\.\w+)?")
# keys of a group of crops that may be there or not
OF_A_GROUP = re.compile(rf"({re.escape(TRANSFORM)}\.crops\.[^.]+)\.(ops\..+|ops|ratio)")


def move_keys(cfg: DictConfig) -> None:
    """Write a config's old keys as today's; changes ``cfg``."""
    _move_to_loggers(cfg)
    _drop_rules_of_health(cfg)
    data = cfg.get("data")
    transform = data.get("transform") if isinstance(data, DictConfig) else None
    if isinstance(transform, DictConfig):
        plain: Any = OmegaConf.to_container(transform)
        moved = with_ops(plain)
        if moved is not plain:
            with open_dict(data):
                data.transform = moved
    resume = cfg.get("resume")
    allowed = resume.get("allow_changes") if isinstance(resume, DictConfig) else None
    if isinstance(allowed, ListConfig):
        resume.allow_changes = [_moved_key(key) for key in allowed]


def _move_to_loggers(cfg: DictConfig) -> None:
    """The log's own switch of TensorBoard, as the loggers have it."""
    log, option = (cfg.get("hooks") or {}).get("log"), OLD_TENSORBOARD.rpartition(".")[2]
    if not isinstance(log, DictConfig) or option not in log:
        return
    with open_dict(cfg):
        shipped: Any = OmegaConf.load(TRAIN_FILE).loggers
        shipped.tensorboard.enabled = log.pop(option)
        cfg.loggers = OmegaConf.merge(shipped, cfg.get("loggers") or {})


def _drop_rules_of_health(cfg: DictConfig) -> None:
    """Of the hooks that watch prototypes; they look at them more often now."""
    hooks = cfg.get("hooks")
    for name, hook in hooks.items() if isinstance(hooks, DictConfig) else ():
        gone = [key for key in RULES_OF_HEALTH if isinstance(hook, DictConfig) and key in hook]
        if not gone:
            continue
        chosen = [f"hooks.{name!s}.{k}" for k in gone if hook[k] != RULES_OF_HEALTH[k]]
        if chosen:
            warnings.warn(f"{', '.join(chosen)}: {NO_RULES}", stacklevel=2)
        with open_dict(hook):
            for key in gone:
                del hook[key]
            for key in ("every_steps", "stop"):
                hook.setdefault(key, OmegaConf.load(HEALTH_FILE).health[key])


def _moved_key(key: Any) -> Any:
    old = OLD_KEY.fullmatch(key) if isinstance(key, str) else None
    return f"{TRANSFORM}.ops.{old[1]}{old[2] or ''}" if old else key


def in_other_words(override: str, cfg: DictConfig) -> str:
    """An override that means the same in this config: of a key as old or as new as those that it
    has, or of one that is not there yet."""
    key = key_of(override)
    if new_key := NEW_KEY.fullmatch(key):
        op, option = new_key[1], new_key[2] or ""
        is_old = OmegaConf.select(cfg, f"{TRANSFORM}.ops") is None
        if is_old and (op not in PROBABILITIES or option in ("", ".probability")):
            option = "" if op in PROBABILITIES else option
            return override.replace(key, f"{TRANSFORM}.{op}{option}", 1)
    if OLD_KEY.fullmatch(key):
        new = _moved_key(key)
        if new.rpartition(".")[2] in PROBABILITIES and not parsed(override).is_delete():
            new += ".probability"
        return override.replace(key, new, 1)
    of_group = OF_A_GROUP.fullmatch(key)
    is_there = of_group is not None and OmegaConf.select(cfg, of_group[1]) is not None
    return f"+{override}" if is_there and override.startswith(key) else override
