"""Weights that are not what they seem: refused by whatever reads them, in one line."""

import re

import pytest
import torch
from zoo_files import released_state

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.cli import main
from ssl_platform.zoo.soundness import first_gap
from ssl_platform.zoo.weights import read_weights

CONV = "layer1.0.conv1.weight"
STEM = {"conv1.weight": torch.ones(8, 3, 7, 7), "bn1.bias": torch.ones(8)}


def written(folder, content):
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        (CONV, torch.tensor([1.0, float("nan")]), "has 1 of 2 values that are NaN or infinite"),
        (CONV, torch.tensor([1.0, float("-inf")]).half(), "has 1 of 2 values that are NaN or inf"),
        (
            CONV,
            torch.zeros(1).expand(2**30),
            "has 1,073,741,824 elements, of which the file holds 1",
        ),
        (CONV, torch.ones(0, 3), "has no values; its shape is (0, 3)"),
        (CONV, torch.ones(3, device="meta"), "has a shape and no values"),
        (CONV, torch.eye(3).to_sparse(), "is sparse, nested or quantized"),
        (CONV, torch.ones(3, dtype=torch.int8), "has the type torch.int8"),
        (CONV, torch.ones(3, dtype=torch.complex64), "has the type torch.complex64"),
        ("bn1.running_var", torch.tensor([1.0, -1.0]), "has negative values, which no variance"),
    ],
)
def test_a_tensor_that_is_no_weight_is_refused_by_name(name, tensor, told, tmp_path):
    path = written(tmp_path, STEM | {name: tensor})
    with pytest.raises(CheckpointError) as caught:
        read_weights(str(path))
    assert str(caught.value).startswith(f"{path}: {name} {told}") and "\n" not in str(caught.value)


def vit(depth: int = 12) -> dict:
    block = ("norm1.weight", "attn.qkv.weight", "mlp.fc1.weight", "mlp.fc2.bias")
    return {f"blocks.{n}.{leaf}": torch.ones(2) for n in range(depth) for leaf in block}


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("blocks.5.", "model.blocks.5"),
        ("blocks.0.", "model.blocks.0"),
        ("blocks.5.mlp.fc1.weight", "model.blocks.5.mlp.fc1.weight"),
        ("blocks.11.norm1.weight", "model.blocks.11.norm1.weight"),
    ],
)
def test_verify_misses_a_block_of_a_transformer(left_out, missing, tmp_path, capsys):
    state = {key: value for key, value in vit().items() if not key.startswith(left_out)}
    path = written(tmp_path, state)
    assert main(["verify", str(path)]) == 3
    out, err = capsys.readouterr()
    assert err == f"error: {path}: not whole; {missing} is missing\n"
    assert "whether the last block is there cannot be seen" in out


@pytest.mark.parametrize("left_out", ["conv1", "bn1", "layer4", "layer3.2.", "layer3.1.bn2.bias"])
def test_verify_misses_a_part_of_a_resnet_whose_stem_is_not_known(left_out, tmp_path, capsys):
    state = released_state("swav_resnet50", shrink=True)
    state["module.conv1.weight"] = torch.ones(8, 3, 3, 3)
    state = {k: v for k, v in state.items() if not k.startswith(f"module.{left_out}")}
    assert main(["verify", str(written(tmp_path, state))]) == 3
    assert f"not whole; {left_out.rstrip('.')} is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [
        [*vit()],
        ["blocks.0.0.a", "blocks.0.1.b", "blocks.1.0.c"],
        ["stages.0.blocks.0.x", "stages.1.downsample.1.x", "stages.1.blocks.0.y"],
        ["features.0.weight", "features.3.weight"],
    ],
)
def test_whole_trunks_have_no_gap(names):
    assert first_gap(names) is None


# ---- what is printed


def test_keys_are_printed_escaped_cut_and_in_one_line(tmp_path, capsys):
    for key in ("\x1b[31m\x1b]0;owned\x07", "line\nbreak", "\u202egnp", "k" * 20_000):
        assert main(["verify", str(written(tmp_path, STEM | {key: torch.ones(1)}))]) == 3
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err[:-1].isprintable() and len(err) < 1500
    assert re.search(r"k\.\.\.\(20000 letters\)\.\.\.k", err)


def test_the_table_of_keys_is_escaped(tmp_path, capsys):
    assert main(["verify", str(written(tmp_path, {"model": vit(1), "\x1b[2J": 1})), "--keys"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[2J" in out
