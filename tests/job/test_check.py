"""What a mistake in a config is answered with: each test types one and reads the whole line."""

import pytest

from ssl_platform.config import compose
from ssl_platform.errors import ConfigError
from ssl_platform.registry import Registry

QUICKSTART = "config=pretrain/swav/quickstart"


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose([QUICKSTART, *overrides])
    return caught.value.problems


MISTAKES = {
    "loss.epsilonn=1": "loss.epsilonn=1: there is no loss.epsilonn; did you mean 'epsilon'?",
    "lss.epsilon=1": "lss.epsilon=1: there is no lss; write loss.epsilon=1",
    "+loss.epsilonn=1": (
        "loss.epsilonn=1: SwAVLoss has no such option; did you mean 'epsilon'? "
        "(~loss.epsilonn leaves it out)"
    ),
    "++xyz=1": (
        "xyz=1: the config has no such option; choose from allow_partial, baselines, "
        "checkpoint, compile, data, device, drop_last, evaluate, freeze_trunk, heads, hooks, "
        "launch, loss, metrics, name, num_epochs, optimizer, output_dir, param_groups, plugins, "
        "precision, profile, resume, save, schedule, seed, sync_batch_norm, task, teacher, "
        "train_fraction, trunk, weights"
    ),
    "~loss.epsilon": "loss.epsilon: SwAVLoss needs a value (float); set loss.epsilon=...",
    "loss.epsilon=???": "loss.epsilon: SwAVLoss needs a value (float); set loss.epsilon=...",
    "optimizer.lr=fast": (
        "optimizer.lr=fast: should be a valid number, unable to parse string as a number"
    ),
    "trunk=resnt18": "trunk=resnt18: no such file; did you mean 'resnet18'?",
    "loss.name=SwAVLos": "loss.name=SwAVLos: no such loss; did you mean 'SwAVLoss'?",
    "data.train.path=/x": "data.train.path=/x: there is no data.train.path; choose from name, "
    "num_samples, seed, size",
    "data.transform.crops.large.sizes=3": (
        "data.transform.crops.large.sizes=3: there is no data.transform.crops.large.sizes; did you "
        "mean 'size'?"
    ),
    "seed": "seed: not an override; write key=value",
    "loss.assign_crops=[0,9]": (
        "loss.assign_crops=[0, 9]: different positions of crops, from 0 to 3 (the data has 4 crops)"
    ),
    "loss.queue_length=20000": (
        "loss.queue_length=20000: the data set has 10000 images; a queue holds at most each of "
        "them once"
    ),
    "loss.epsilon=0": "loss.epsilon=0: above 0, e.g. 0.05",
    "schedule.warmup_epochs=6": (
        "schedule.warmup_epochs=6.0: the training has num_epochs=6; the warm-up must be shorter, "
        "e.g. 0.6"
    ),
    "launch.processes=3": (
        "data.batch_size=32: the total batch must be a positive multiple of the 3 processes, "
        "e.g. 33"
    ),
    "data.batch_size=20000": (
        "data.batch_size=20000: the training set has only 10000 images, so an epoch has no full "
        "batch"
    ),
    "precision=bf16": ("precision=bf16: should be 'auto', 'float32', 'bfloat16' or 'float16'"),
    "loss.head=linear": (
        "loss.head=linear: has to be a PrototypeHead; the model's heads are ['prototypes']"
    ),
    "plugins=[no_such_module]": "plugins=['no_such_module']: No module named 'no_such_module'",
    "plugins=mine": "plugins=mine: a list of modules; write plugins=[mine]",
    "profile=yess": "profile=yess: should be a valid boolean, unable to interpret input",
    "seed=-1": "seed=-1: from 0 to 9223372036854775807",
    "name=": "name=: a name of its own, without '..'",
    "name=../escape": "name=../escape: a name of its own, without '..'",
    "output_dir=" + "x" * 256: f"output_dir={'x' * 256}: no directory can have such a name",
    "output_dir=/": (
        "output_dir=/: the working directory lies in it; give the run a directory of its own"
    ),
    "launch.threads=100000000": "launch.threads=100000000: from 1 to 4096, or null",
    "hooks.knn.num_labels=0": "hooks.knn.num_labels=0: at least 1, or null for all",
    "hooks.knn.seed=-1": "hooks.knn.seed=-1: 0 or more",
    "save.every_minutes=nan": "save.every_minutes=nan: should be a finite number",
    "optimizer.lr=inf": "optimizer.lr=inf: should be a finite number",
    "optimizer.momentum=1": "optimizer.momentum=1: from 0 to below 1, e.g. 0.9",
    "optimizer.trust_coefficient=0": "optimizer.trust_coefficient=0: above 0, e.g. 0.001",
    "optimizer=sgd": (
        "optimizer.trust_coefficient=0.02: SGD has no such option; choose from lr, momentum, "
        "nesterov, weight_decay (~optimizer.trust_coefficient leaves it out)"
    ),
    "schedule.final_lr=-1": "schedule.final_lr=-1: 0 or more",
    "trunk.width=100000000000": (
        "trunk: Storage size calculation overflowed with sizes=[100000000000, 100000000000, 3, 3]"
    ),
    "param_groups=[{match: trunk.*, lr_scale: -1, weight_decay: null}]": (
        "param_groups.0.lr_scale=-1: 0 or more"
    ),
    "data.path=ü": (
        "data.path=ü: not an override; quote its value, and all of it for the shell: "
        "\"data.path='ü'\""
    ),
    "optimizer.lr=0.1,0.3": (
        "optimizer.lr=0.1,0.3: several values; -m runs each of them, and quotes make one of them: "
        "\"optimizer.lr='0.1,0.3'\""
    ),
    QUICKSTART: f"{QUICKSTART} {QUICKSTART}: a run has one config",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_gives_one_line(mistake):
    assert problems(mistake) == [MISTAKES[mistake]]


def test_all_mistakes_are_told_at_once():
    found = problems(
        "trunk=resnt18",
        "loss.epsilonn=1",
        "optimizer.lr=fast",
        "data=folder",
        "data.train.path=/nowhere",
    )
    assert len(found) == 4
    assert {line.partition(":")[0] for line in found} == {
        "trunk=resnt18",
        "loss.epsilonn=1",
        "optimizer.lr=fast",
        "data.train.path=/nowhere",
    }


def test_rules_among_values_are_told_together():
    found = problems("loss.assign_crops=[7]", "schedule.warmup_epochs=9", "launch.processes=3")
    assert {line.partition("=")[0] for line in found} == {
        "loss.assign_crops",
        "schedule.warmup_epochs",
        "data.batch_size",
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pretrain/swav/qickstart", "did you mean 'pretrain/swav/quickstart'?"),
        ("/nowhere.yaml", "no such file"),
    ],
)
def test_a_wrong_config_name_gets_a_hint(name, hint):
    with pytest.raises(ConfigError, match=r"^config=") as caught:
        compose([f"config={name}"])
    assert hint in str(caught.value)


def test_a_missing_config_lists_the_choices():
    with pytest.raises(ConfigError, match="which one") as caught:
        compose([])
    assert "pretrain/swav/quickstart" in str(caught.value)


def test_more_prototypes_than_samples_is_a_warning_with_the_consequence():
    with pytest.warns(UserWarning, match="500 prototypes for 416 samples .*stay unused"):
        compose([QUICKSTART, "heads.prototypes.num_prototypes=[500]"])


def test_a_data_folder_that_is_wrong_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    corrupt = tmp_path / "corrupt"
    corrupt.mkdir()
    for number in range(3):
        (corrupt / f"{number}.jpg").write_bytes(b"not an image")
    small = ["data.batch_size=2", "heads.prototypes.num_prototypes=[2]", "loss.queue_length=0"]
    for folder, reason in (
        ("/nowhere", "no such directory"),
        (empty, "no image"),
        (corrupt, "none of the 3 images tried can be read"),
    ):
        (line,) = problems("data=folder", f"data.train.path={folder}", *small)
        assert line.startswith(f"data.train.path={folder}: {reason}"), line


def test_what_lies_within_a_compiled_trunk_cannot_be_read():
    overrides = ["config=benchmark/linear/folder", "data=shapes", "trunk=resnet18", "compile=true"]
    with pytest.raises(ConfigError) as caught:
        compose([*overrides, "heads=linear", "heads.linear.layer=layer3"])
    assert caught.value.problems == [
        "compile=true: heads.linear.layer=layer3 lies within the trunk that is compiled as a "
        "whole; compile=false, or layer=pooled"
    ]


def test_compiling_on_a_cpu_needs_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert problems("compile=true") == [
        "compile=true: on a CPU torch needs a C++ compiler, and there is none (c++ or g++ or "
        "clang++): install g++"
    ]


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler"])
def test_a_compiler_that_does_not_work_is_none(compiler, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    assert problems("compile=true") == [
        f"compile=true: on a CPU torch needs a C++ compiler, and there is none ({compiler}): "
        "install g++"
    ]


BROKEN_FILES = {
    "# @package _global_\nnum_epochs: [2\n": "while parsing a flow sequence in ",
    "# @package _global_\nseed: 2\nseed: 3\n": "found duplicate key seed in ",
    "# @package _global_\ndefaults: [override /trunk: convz, _self_]\n": (
        "Could not find 'trunk/convz'"
    ),
    "num_epochs: 2\n": "its first line has to be '# @package _global_'",
}


@pytest.mark.parametrize("others", [[], ["seed=1", "num_epochs=3"]])
@pytest.mark.parametrize("text", BROKEN_FILES)
def test_a_broken_file_is_named(text, others, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "broken.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose(["config=broken", *others], [tmp_path])
    (line,) = caught.value.problems
    assert line.startswith("config=broken: ")
    assert BROKEN_FILES[text] in line


@pytest.mark.parametrize(
    ("code", "reason"),
    [("def f(:", "line 1: SyntaxError: "), ("\nx = 1 / 0", "line 2: ZeroDivisionError: ")],
)
def test_a_plugin_that_fails_is_named_with_the_line(code, reason, tmp_path, monkeypatch):
    (tmp_path / "failing_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = problems("plugins=[failing_plugin]")
    where = f"plugins=['failing_plugin']: {tmp_path / 'failing_plugin.py'}, {reason}"
    assert line.startswith(where)


def test_an_option_without_an_annotation_takes_any_value():
    class Free:
        def __init__(self, *, value):
            self.value = value

    registry = Registry("thing")
    registry.register(Free)
    assert registry.problems({"name": "Free", "value": [1]}, where="thing") == []
    assert registry.build({"name": "Free", "value": [1]}).value == [1]
