"""What nobody would type or save on purpose: an error of ours in words, or it is fine; no more.

Thousands of cases, the same in every run.
"""

import io
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

from ssl_platform import checkpoint
from ssl_platform.config import Source, compose
from ssl_platform.data.decode import decode
from ssl_platform.errors import CheckpointError, ConfigError

QUICKSTART = "config=pretrain/swav/quickstart"


def cases(number: int) -> Callable:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# ---- overrides and YAML files

KEYS = sorted(
    {"", "x", "hydra.run.dir", "config", "trunk", "loss/x", "heads@y", "data.train", "_target_"}
    | {
        ".".join(map(str, path))
        for path in (
            ("optimizer", "lr"), ("optimizer",), ("loss", "epsilon"), ("loss", "name"), ("seed",),
            ("heads", "prototypes", "num_prototypes"), ("data", "transform", "crops"), ("hooks",),
            ("hooks", "knn"), ("launch", "processes"), ("launch", "slurm"), ("plugins",), ("name",),
            ("data", "batch_size"), ("data", "normalize", "mean"), ("task",), ("task", "name"),
            ("output_dir",), ("device",), ("precision",), ("save", "keep"), ("metrics", "top1"),
        )
    }
)  # fmt: skip
WORDS = [
    "", "0", "-1", "1e400", "nan", "null", "true", "[]", "{}", "[1,[2]]", "{a: {b: c}}", "???", "'",
    '"', "${", "${x}", "${oc.env:NOPE}", "${seed}", "${optimizer}", "${loss.epsilon}", "a,b",
    "choice(1,2)", "range(1,3)", "1..3", "glob(*)", "\\", "\n", "=", "SwAVLoss", "resnet18", "ä€😀",
    "../x", "/etc/passwd", "_here_", "${hydra:runtime.cwd}", "int(x)", "extend_list(1)", "\x00",
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
    """Whatever is asked is answered, or refused in lines that each say something."""
    try:
        ask()
    except ConfigError as error:
        assert error.problems
        assert all(problem.strip() for problem in error.problems)


@cases(120)
@given(st.lists(override, min_size=1, max_size=3))
@example(["seed=${seed}"])
@example(["+x=${x}"])
@example(["name=${name}"])
def test_overrides_compose_or_are_refused(overrides):
    def ask() -> None:
        cfg, problems = Source.of([QUICKSTART, *overrides]).read()
        assert problems or OmegaConf.is_config(cfg)

    config_problems(ask)


@cases(50)
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


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda node: st.one_of(
        st.lists(node, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["name", "defaults", "loss", "optimizer", "lr", "hydra", "override /x"]
            ),
            node,
            max_size=3,
        ),
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


@cases(230)
@given(YAML_TEXT)
@example(b"# @package _global_\n- 1")
@example(b"# @package _global_\na: &a [*a]")
@example(b"a: !!python/object/apply:os.system [id]")
@example(b"\xff\xfe\x00")
@example(b"5")
def test_files_compose_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    config_problems(lambda: Source.of([f"config={path}"]).read())


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
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


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
