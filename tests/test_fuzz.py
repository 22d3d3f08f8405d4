"""Random overrides, YAML files and bytes: each is accepted, or refused by an error in words.

Every run tries the same cases; ``FUZZ_TIMES=8`` tries eight times as many.
"""

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from ssl_platform.config import compose
from ssl_platform.config.source import Source, sweep_jobs
from ssl_platform.data.decoding.decode import decode
from ssl_platform.engine import checkpoint
from ssl_platform.errors import CheckpointError, ConfigError

QUICKSTART = "config=pretrain/swav/quickstart"
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))


def cases(number: int) -> Callable:
    return settings(
        max_examples=number * TIMES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# ---- overrides and YAML files

KEYS = [
    "", "_target_", "config", "data.batch_size", "data.normalize.mean", "data.train",
    "data.transform.crops", "device", "heads.prototypes.num_prototypes", "heads@y", "hooks",
    "hooks.knn", "hydra.run.dir", "launch.processes", "launch.slurm", "loss.epsilon", "loss.name",
    "loss/x", "metrics.top1", "name", "optimizer", "optimizer.lr", "output_dir", "plugins",
    "precision", "save.keep", "seed", "task", "task.name", "trunk", "x",
]  # fmt: skip
WORDS = [
    "", "0", "-1", "1e400", "nan", "null", "true", "[]", "{}", "[1,[2]]", "{a: {b: c}}", "???", "'",
    '"', "${", "${x}", "${oc.env:NOPE}", "${seed}", "${optimizer}", "${loss.epsilon}", "a,b",
    "choice(1,2)", "range(1,3)", "1..3", "glob(*)", "\\", "\n", "=", "SwAVLoss", "resnet18", "ä€😀",
    "../x", "/etc/passwd", "_here_", "${hydra:runtime.cwd}", "int(x)", "extend_list(1)", "\x00",
    "\x1b[31m", "[" * 200, "x" * 300, "${" * 50, "{a: " * 40, "\udcff", "https://u:p@h/x", "[5]",
]  # fmt: skip
text = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
override = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "+", "++", "~", "-", "@"]),
    st.one_of(st.sampled_from(KEYS), text),
    st.sampled_from(["=", "=", "=", "", "=="]),
    st.lists(text, max_size=3).map("".join),
)


def config_problems(ask: Callable[[], object]) -> None:
    """``ask`` returns, or raises `ConfigError` without an empty line."""
    try:
        ask()
    except ConfigError as error:
        assert error.problems
        assert all(problem.strip() for problem in error.problems)


@cases(50)
@given(st.lists(override, min_size=1, max_size=3))
@example(["seed=${seed}"])
@example(["+x=${x}"])
@example(["name=${name}"])
def test_overrides_compose_or_are_refused(overrides):
    def ask() -> None:
        cfg, problems = Source.of([QUICKSTART, *overrides]).read()
        assert problems or OmegaConf.is_config(cfg)

    config_problems(ask)


SWEEPS = [
    "choice()", "choice(1)", "range(0,1,0)", "range(0,1,0.0)", "range(1,0)", "range(0,1e12)",
    "range(0,inf)", "range(nan,1)", "range(3)", "interval(0,1)", "glob(*)", "glob([a,*],exclude=*)",
    "shuffle(1,2)", "shuffle(range(0,1e12))", "sort(b,a)", "tag(a,1,2)", "sort(1,a)", "1,2", ",",
    "choice(choice(1,2))", "choice([1,2],{a: b})", "interval(1,0)", "tag(choice(1,2))", "'1',\"2\"",
    ",".join(map(str, range(50))), "range(0,1,-1)", "${x},1",
]  # fmt: skip


@cases(25)
@given(
    st.lists(
        st.builds(
            "{}{}={}".format,
            st.sampled_from(["", "", "+", "++", "~"]),
            st.one_of(st.sampled_from([*KEYS, "trunk@x", "data", "hydra.sweep.dir"]), text),
            st.one_of(st.sampled_from(SWEEPS), text),
        ),
        min_size=1,
        max_size=2,
    )
)
@example(["trunk@x=interval(0,1)"])
@example(["seed=range(0,1000000000)"])
@example(["seed=range(0,99)", "loss.epsilon=range(0,99)"])
@example(["hydra.sweep.dir=1,2"])
def test_odd_sweeps_are_runs_or_refused(overrides):
    config_problems(lambda: list(sweep_jobs([QUICKSTART, *overrides])))


@cases(20)
@given(st.integers(201, 5000), st.sampled_from(["", "+", "~", "a/", "a.", "a@"]), text)
def test_long_keys_are_refused(length, prefix, value):
    with pytest.raises(ConfigError):
        Source.of([QUICKSTART, f"{prefix}{'k' * length}={value}"]).read()


def test_too_many_overrides_are_refused_before_they_are_read():
    with pytest.raises(ConfigError, match="10,000 overrides, more than 1,000"):
        Source.of([QUICKSTART, *(f"+x{n}=1" for n in range(9_999))]).read()


def test_several_wrong_keys_are_found_in_one_composed_config(monkeypatch):
    composed = []
    compose_once = Source._compose
    monkeypatch.setattr(
        Source, "_compose", lambda *a, **k: (composed.append(1), compose_once(*a, **k))[1]
    )
    wrong = [f"optimizer.wrong{n}=1" for n in range(20)]
    _, problems = Source.of([QUICKSTART, *wrong]).read()
    assert [problem.partition(":")[0] for problem in problems] == wrong
    assert len(composed) <= 4


@pytest.mark.parametrize(
    "plugins",
    ["5", "[5]", "[[a]]", "[{a: b}]", "['']", "[.a]", "['a b']", "true", "[null]", "['a..b']"],
)
def test_plugins_of_any_type_are_names_of_modules_or_refused(plugins):
    with pytest.raises(ConfigError, match=r"^plugins=.*: a list of names of modules"):
        compose([QUICKSTART, f"plugins={plugins}"])


@cases(25)
@given(override)
@example("launch.processes=-1")
@example("optimizer=null")
@example("loss.epsilon=nan")
@example("data.normalize.mean=[]")
@example("heads.prototypes.num_prototypes=[]")
@example("data.transform.crops=null")
@example("hooks.knn=5")
@example("task.name=5")
@example("seed=${seed}")
@example("=0")
def test_a_whole_check_passes_or_refuses(one):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config_problems(lambda: compose([QUICKSTART, one]))


YAML_KEYS = ["name", "defaults", "loss", "optimizer", "lr", "hydra", "override /x"]
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda node: st.one_of(
        st.lists(node, max_size=3),
        st.dictionaries(st.sampled_from(YAML_KEYS), node, max_size=3),
    ),
    max_leaves=6,
)
HEADS = [
    "", "# @package _global_\n",
    "# @package _global_\ndefaults: [/config/pretrain/swav/quickstart, _self_]\n",
]  # fmt: skip
YAML_TEXT = st.one_of(
    st.builds(lambda head, node: head.encode() + yaml.safe_dump(node).encode(),
              st.sampled_from(HEADS), PLAIN),
    st.builds(lambda head, tail: head.encode() + tail.encode(errors="replace"),
              st.sampled_from(HEADS), st.text(max_size=40)),
    st.binary(max_size=60),
)  # fmt: skip


@cases(80)
@given(YAML_TEXT)
@example(b"# @package _global_\n- 1")
@example(b"# @package _global_\na: &a [*a]")
@example(b"a: !!python/object/apply:os.system [id]")
@example(b"\xff\xfe\x00")
@example(b"5")
@example(b"a: &a {b: *a}")
@example(b"[" * 100_000)
@example(b"# @package _global_\nplugins: {a: b}")
@example(b'# @package _global_\nname: "a\\0b"')
def test_files_compose_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    config_problems(lambda: Source.of([f"config={path}"]).read())


def doubling(first: str, line: str, number: int = 40) -> str:
    """YAML whose every line refers to the line before it twice."""
    lines = [line.format(n=n, before=n - 1) for n in range(1, number)]
    return "\n".join(["# @package _global_", first, *lines])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (doubling("a0: &a0 [x]", "a{n}: &a{n} [*a{before}, *a{before}]"), "aliases"),
        (doubling("a0: &a0 {k: 1}", "a{n}: &a{n} {{<<: [*a{before}, *a{before}]}}"), "aliases"),
        (doubling("a0: xxx", "a{n}: '${{a{before}}}${{a{before}}}'"), "references stand for"),
        (
            doubling("a0: {x: 1}", "a{n}: {{x: '${{a{before}}}', y: '${{..a{before}}}'}}"),
            "stand for",
        ),
        ("a: &a {b: *a}", "more than 50 deep"),
        ("[" * 100_000, "more than 50 deep"),
        ("a: " + "b" * 10**6, "larger than 131,072 bytes"),
    ],
    ids=["aliases", "merged", "references", "nodes", "itself", "deep", "large"],
)
def test_yaml_that_stands_for_gigabytes_is_refused_at_once(text, reason, tmp_path):
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        Source.of([f"config={tmp_path / 'bomb.yaml'}"]).read()
    assert len(caught.value.problems) == 1 and "\n" not in caught.value.problems[0]


def test_a_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a file"):
        Source.of([f"config={tmp_path / 'pipe.yaml'}"])


# ---- bytes


def encoded(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [
    *(encoded("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
    *(encoded("PNG", mode) for mode in ("RGB", "RGBA", "P", "1")),
    *(encoded(kind) for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM")),
]


def mutated(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of ``originals``, cut, and with some of its bytes changed, preferably in its head."""
    place = st.one_of(st.integers(0, 64), st.integers(0, 2**20))
    change = st.tuples(place, st.integers(0, 255))

    def mutate(original: bytes, changes: list[tuple[int, int]], kept: float) -> bytes:
        data = bytearray(original)
        for position, value in changes:
            data[position % len(data)] = value
        return bytes(data[: int(len(data) * kept)])

    kept = st.one_of(st.just(1.0), st.floats(0, 1))
    return st.builds(mutate, st.sampled_from(originals), st.lists(change, max_size=6), kept)


@cases(1300)
@given(st.one_of(mutated(IMAGES), st.binary(max_size=80)))
@example(b"\xff\xd8\xff")
@example(
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
)
def test_bytes_are_an_image_or_refused_in_one_line(data):
    try:
        pixels = decode(data)
    except ValueError as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)


@pytest.fixture(scope="module")
def checkpoint_bytes() -> bytes:
    state = {
        "model": torch.nn.Linear(3, 2).state_dict(),
        "optimizer": {"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "rng": torch.get_rng_state(),
        "epoch": 3,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@cases(500)
@given(data=st.data())
def test_bytes_are_a_checkpoint_or_refused(tmp_path_factory, checkpoint_bytes, data):
    path: Path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    path.write_bytes(data.draw(st.one_of(mutated([checkpoint_bytes]), st.binary(max_size=80))))
    try:
        checkpoint.read(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
