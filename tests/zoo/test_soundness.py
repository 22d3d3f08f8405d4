"""Weights that are not what they seem: refused by whatever reads them, in one line."""

import io
import re
import zipfile

import pytest
import torch
from zoo_files import released_state

from ssl_platform.engine import checkpoint
from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.cli import main
from ssl_platform.zoo.soundness import first_gap
from ssl_platform.zoo.weights import read_weights

NAME = "layer1.0.conv1.weight"
STEM = {"conv1.weight": torch.ones(8, 3, 7, 7), "bn1.bias": torch.ones(8)}


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def written(folder, content, **options):
    torch.save(content, folder / "file.pth", **options)
    return folder / "file.pth"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.tensor([1.0, float("nan")]), "has 1 of 2 values that are NaN or infinite"),
        (torch.tensor([1.0, float("-inf")]).half(), "has 1 of 2 values that are NaN or infinite"),
        (
            torch.zeros(1).expand(2**40),
            "has 1,099,511,627,776 elements, of which the file holds 1",
        ),
        (torch.ones(0, 3), "has no values; its shape is (0, 3)"),
        (torch.ones(3, device="meta"), "has a shape and no values"),
        (torch.eye(3).to_sparse(), "is sparse, nested or quantized"),
        (torch.ones(3, dtype=torch.int8), "has the type torch.int8"),
        (torch.ones(3, dtype=torch.complex64), "has the type torch.complex64"),
    ],
)
def test_a_tensor_that_is_no_weight_is_refused_by_name(tensor, told, tmp_path):
    assert refusal(written(tmp_path, STEM | {NAME: tensor})).startswith(f"{NAME} {told}")


def test_a_negative_variance_is_refused(tmp_path):
    state = STEM | {"bn1.running_var": torch.tensor([1.0, -1.0])}
    assert refusal(written(tmp_path, state)) == (
        "bn1.running_var has negative values, which no variance has"
    )


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


# ---- dictionaries, pickles and archives


def holding_itself() -> dict:
    content: dict = {}
    content["model"] = content
    return content


def nested(depth: int, width: int) -> dict:
    content: dict = {}
    for _ in range(depth):
        content = {str(number): content for number in range(width)}
    return content


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (holding_itself(), "lie more than 20 deep in one another"),
        ({"x": nested(100, 1)}, "lie more than 20 deep in one another"),
        (nested(19, 10), "has more than 100,000 keys"),
    ],
    ids=["itself", "deep", "wide"],
)
def test_dictionaries_that_have_no_end(content, told, tmp_path):
    assert told in refusal(written(tmp_path, content))


def bomb(path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**27))


def test_a_zip_bomb_is_known_by_its_header(tmp_path):
    bomb(tmp_path / "file.pth")
    assert "bytes that unpack to 134,217,728, more than 16 times" in refusal(tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="unpack to 134,217,728"):
        checkpoint.read(tmp_path / "file.pth")


def test_a_small_archive_that_was_packed_again_is_read(tmp_path):
    buffer = io.BytesIO()
    torch.save(STEM, buffer)
    packed = zipfile.ZipFile(tmp_path / "file.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(buffer) as archive, packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert read_weights(str(tmp_path / "file.pth")).trunk.keys() == STEM.keys()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x1f\x8b\x08", "compressed by gzip; unpack it"),
        (b"BZh91AY", "compressed by bzip2; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (zipped("plain.pth"), "a zip archive of plain.pth; unpack it"),
        (zipped("a.npy"), "arrays of NumPy"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x80\x04\x95\x00.", "a pickle of protocol 4, which torch's safe reader does not know"),
    ],
)
def test_a_whole_file_of_another_kind_is_not_called_damaged(content, told, tmp_path):
    (tmp_path / "file.pth").write_bytes(content)
    message = refusal(tmp_path / "file.pth")
    assert message.startswith(told) and "fetch it again" not in message


def test_a_newer_pickle_of_torch_is_not_called_damaged(tmp_path):
    message = refusal(written(tmp_path, STEM, pickle_protocol=4))
    assert message.startswith("a pickle of protocol 4,")


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
