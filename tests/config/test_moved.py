"""Keys that lie elsewhere now: what older runs have saved and users have written goes on."""

import copy
from typing import Any

import pytest
from omegaconf import OmegaConf

from ssl_platform.config import compose
from ssl_platform.config.moved import move_keys
from ssl_platform.config.saved import differences, with_defaults
from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.config.source import Source
from ssl_platform.data.crops.older_keys import with_ops
from ssl_platform.errors import ConfigError

QUICKSTART = "config=pretrain/swav/quickstart"
OPS = "data.transform.ops"
LARGE = "data.transform.crops.large"
JITTER = {"probability": 1.0, "brightness": 0.3, "contrast": 0.3, "saturation": 0.0, "hue": 0.0}
BLUR = {"probability": 0.0, "sigma": [0.1, 2.0], "kind": "gaussian23"}


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose([QUICKSTART, *overrides])
    return caught.value.problems


def composed(*overrides: str, config: str = QUICKSTART) -> Any:
    """A config that is not checked, its old keys written as today's."""
    cfg, problems = Source.of([config, *overrides]).read()
    assert not problems
    move_keys(cfg)
    return cfg


def of_an_older_run(new: Any) -> dict[str, Any]:
    """A config as it was before ops had names."""
    old: Any = copy.deepcopy(OmegaConf.to_container(new))
    ops = old["data"]["transform"].pop("ops")
    options = {key: {k: v for k, v in op.items() if k != "name"} for key, op in ops.items()}
    for key in ("flip", "grayscale"):
        options[key] = options[key]["probability"]
    old["data"]["transform"] |= options
    return old


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("data.transform.flip=0.1", f"{OPS}.flip.probability=0.1"),
        ("data.transform.grayscale=0", f"{OPS}.grayscale.probability=0"),
        ("data.transform.jitter.hue=0.2", f"{OPS}.jitter.hue=0.2"),
        ("data.transform.blur={kind: pil}", f"{OPS}.blur={{kind: pil}}"),
        ("+data.transform.blur={probability: 1}", f"{OPS}.blur.probability=1"),
        ("~data.transform.jitter", f"~{OPS}.jitter"),
        ("resume.allow_changes=[data.transform.flip]", f"resume.allow_changes=[{OPS}.flip]"),
    ],
)  # fmt: skip
def test_an_old_key_on_the_command_line_means_the_new_one(old, new):
    assert composed(old) == composed(new)


def test_old_keys_of_a_file_change_the_ops_that_there_are(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "# @package _global_\n"
        "defaults: [/config/pretrain/swav/quickstart, _self_]\n"
        "data: {transform: {flip: 0.25, blur: {kind: pil}}}\n"
    )
    ours = composed(config=f"config={file}").data.transform
    new = composed(f"{OPS}.flip.probability=0.25", f"{OPS}.blur.kind=pil")
    assert ours == new.data.transform
    assert list(ours.ops) == ["flip", "jitter", "grayscale", "blur"]


def test_what_is_wrong_with_an_old_key_is_told_with_the_new_one():
    assert problems("data.transform.flip=2", "data.transform.jitter.hue=1") == [
        f"{OPS}.flip.probability=2: from 0 to 1",
        f"{OPS}.jitter.hue=1: from 0 to 0.5",
    ]


def test_a_run_opens_and_goes_on_that_was_saved_with_old_keys(tmp_path):
    new = composed()
    old = of_an_older_run(new)
    transform = old["data"]["transform"]
    assert (transform["flip"], transform["jitter"], transform["blur"]) == (0.5, JITTER, BLUR)
    assert with_defaults(old) == (OmegaConf.to_container(new), [])
    file = tmp_path / "config.yaml"
    OmegaConf.save(old, file)
    assert differences(file, new, []) == []
    saved = f"config={file}"
    assert compose([saved]) == compose([QUICKSTART])  # where the check has completed both
    other = composed(f"{OPS}.flip.probability=0.1")
    key = f"{OPS}.flip.probability"
    assert differences(file, other, []) == [f"{key}: 0.5 there, 0.1 here"]
    assert differences(file, other, [f"{OPS}.flip"]) == []
    for changes in (
        [f"{key}=0.1", f"{OPS}.jitter.hue=0.2", f"~{OPS}.blur"],
        ["data.transform.flip=0.1", "data.transform.jitter.hue=0.2", "~data.transform.blur"],
    ):
        assert composed(*changes, config=saved) == composed(*changes)
    added = f"+{OPS}.solarize={{name: Solarize, probability: 0.2, threshold: 128}}"
    ops = composed(added, config=saved).data.transform.ops
    assert list(ops) == ["flip", "jitter", "grayscale", "blur", "solarize"]


def test_a_transform_of_another_name_keeps_its_keys():
    for transform in ({"name": "Mine", "flip": 0.5, "blur": {}}, {"flip": 0.5}):
        assert with_ops(transform) is transform


def test_ops_of_a_group_need_no_plus():
    solarize = f"{LARGE}.ops.solarize={{name: Solarize, probability: 0.2, threshold: 128}}"
    ours = compose(
        [QUICKSTART, f"{LARGE}.ops.blur.probability=1", f"{LARGE}.ratio=[1,1]", solarize]
    )
    group = ours.data.transform.crops.large
    assert group.ops.blur == {"probability": 1} and group.ratio == [1, 1]
    assert group.ops.solarize.threshold == 128
    assert composed(f"{LARGE}.ops.jitter=null").data.transform.crops.large.ops == {"jitter": None}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.transform.crops.larg.ops.blur=null", "there is no data.transform.crops.larg; "),
        (f"{LARGE}.op.blur=null", f"there is no {LARGE}.op; "),
        (f"{OPS}.jitter.hues=0.1", f"there is no {OPS}.jitter.hues; did you mean 'hue'?"),
        ("data.transform.jitters=null", "there is no data.transform.jitters; "),
    ],
)
def test_a_key_that_is_nowhere_is_told(override, line):
    _, (problem,) = Source.of([QUICKSTART, override]).read()
    assert line in problem


def test_what_is_wrong_with_ops_is_told_with_their_keys():
    assert problems(
        f"{LARGE}.size=[24,20]",
        f"{LARGE}.ops.blurr.probability=1",
        f"{LARGE}.ops.solarize={{name: Solarize, probability: 2, threshold: 128}}",
        f"{LARGE}.ops.blur.sigma=[3,1]",
        f"{OPS}.grayscale=5",
    ) == [
        f"{OPS}.grayscale=5: an op, {{name: ..., ...}}, or null for none",
        f"{LARGE}.ops.blurr: no op of all groups is called so, did you mean 'blur'?; one of this "
        "group needs a name",
        f"{LARGE}.ops.solarize.probability=2: from 0 to 1",
        f"{LARGE}.ops.blur.sigma=[3, 1]: must be two rising numbers in [0.01, 100]",
    ]
    turn = f"+{OPS}.turn={{name: QuarterTurns, probability: 0.5, turns: [1]}}"
    assert problems(f"{LARGE}.size=[24,20]", turn) == [
        f"{OPS}.turn.turns=[1]: would make a crop of 24 x 20 one of 20 x 24; use [2], or crops of "
        "equal sides"
    ]


def test_a_shipped_part_has_no_old_key():
    for path in CONFIG_DIR.rglob("*.yaml"):
        for key in ("transform", "data.transform"):
            transform = OmegaConf.select(OmegaConf.load(path), key) or {}
            assert not {"flip", "jitter", "grayscale", "blur"} & set(transform), path


OLD_RULES = {"uniform_margin": 0.01, "min_used": 0.1, "from_epoch": 2}


@pytest.mark.parametrize(
    ("changed", "told"), [({}, []), ({"min_used": 0.2}, ["hooks.health.min_used"])]
)
def test_rules_of_health_that_older_runs_have_saved_are_dropped(changed, told, recwarn):
    new = composed()
    plain: Any = OmegaConf.to_container(new)
    head = {key: plain["hooks"]["health"][key] for key in ("name", "head", "temperature")}
    plain["hooks"]["health"] = head | OLD_RULES | changed
    old = OmegaConf.create(plain)
    move_keys(old)
    assert old.hooks.health == new.hooks.health
    assert [str(warning.message).partition(":")[0] for warning in recwarn] == told


def test_a_rule_of_health_that_is_gone_is_not_taken():
    assert problems("hooks.health.min_used=0.2") == [
        "hooks.health.min_used=0.2: there is no hooks.health.min_used; it is gone, leave it out: "
        "docs/monitoring.md says by what a collapse is found now"
    ]
