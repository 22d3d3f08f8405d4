"""Files that are no checkpoints, or worse: one line, and nothing in them is run."""

import io
import os
import random
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from ssl_platform.engine import checkpoint
from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.files import read_content
from ssl_platform.zoo.weights import read_weights

STATE = {"conv1.weight": torch.arange(8 * 3 * 49.0).reshape(8, 3, 7, 7), "bn1.bias": torch.ones(8)}


def saved(content: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def holding_itself() -> dict:
    content: dict = {}
    content["model"] = content
    return content


def nested(depth: int, width: int) -> dict:
    content: dict = {}
    for _ in range(depth):
        content = {str(number): content for number in range(width)}
    return content


class Payload:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_with_code_is_refused_and_not_run(zipped, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save({**STATE, "extra": Payload(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        read_weights(str(path))
    assert str(caught.value).startswith(f"{path}: a pickle that needs to run code (")
    assert "system" in str(caught.value) and "\n" not in str(caught.value)
    assert not marker.exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(torchvision.models.resnet18(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"needs to run code .*save its state dict alone"):
        read_weights(str(tmp_path / "model.pth"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="a TorchScript program"):
        read_weights(str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file; fetch it again"),
        (b"<!DOCTYPE html><html>sign in</html>", "a web page, not a checkpoint"),
        (b"\n <html>404</html>", "a web page, not a checkpoint"),
        (b"just some text", "text, not a checkpoint"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "truncated or damaged"),
        (b"\x1f\x8b\x08", "compressed by gzip; unpack it"),
        (b"BZh91AY", "compressed by bzip2; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (zipped({"plain.pth": b"x"}), "a zip archive of plain.pth; unpack it"),
        (zipped({"a.npy": b"x"}), "arrays of NumPy"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x80\x04\x95\x00.", "a pickle of protocol 4, which torch's safe reader does not know"),
        (saved(STATE, pickle_protocol=4), "a pickle of protocol 4, which torch's safe reader"),
        (saved([torch.zeros(1)]), "holds a list"),
        (saved(holding_itself()), "its dictionaries lie more than 20 deep in one another"),
        (saved({"x": nested(100, 1)}), "its dictionaries lie more than 20 deep in one another"),
        (saved(nested(19, 10)), "has more than 100,000 keys"),
    ],
    ids=lambda value: "bytes" if isinstance(value, bytes) else value[:20],
)
def test_what_is_no_checkpoint_is_told_in_a_line(content, told, tmp_path):
    path = tmp_path / "file.pth.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(str(path))
    message = str(caught.value).removeprefix(f"{path}: ")
    assert re.match(told, message) and "\n" not in message
    is_damaged = not content or "damaged" in message
    assert message.endswith("fetch it again") == is_damaged


@pytest.mark.parametrize("read", [read_content, checkpoint.read])
def test_a_zip_bomb_is_known_by_its_header(read, tmp_path):
    bomb = zipped({"archive/data.pkl": bytes(2**27)}, zipfile.ZIP_DEFLATED)
    (tmp_path / "file.pth").write_bytes(bomb)
    with pytest.raises(CheckpointError, match="unpack to 134,217,728, more than 16 times"):
        read(tmp_path / "file.pth")


@pytest.mark.parametrize("write", [torch.save, safetensors.torch.save_file])
def test_truncated_and_mutated_files_raise_our_error_only(write, tmp_path):
    path = tmp_path / "file"
    write(STATE, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole[: rng.randrange(1, len(whole))])
        for _ in range(rng.randrange(20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_content(path)


@pytest.mark.parametrize("source", ["nowhere/at/all.pth", "run_that_is_not"])
def test_a_missing_file_names_itself(source):
    with pytest.raises(CheckpointError, match=rf"^{source}: no such file or run"):
        read_weights(source)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}: not the directory of a run"):
        read_weights(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        saved(STATE),
        saved(STATE, _use_new_zipfile_serialization=False),
        zipped(members(saved(STATE)), zipfile.ZIP_DEFLATED),
        safetensors.torch.save(STATE),
    ],
    ids=["new", "old", "packed again", "safetensors"],
)
def test_files_of_all_formats_are_read_whatever_they_are_called(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    trunk = read_weights(str(tmp_path / "file")).trunk
    assert all(torch.equal(trunk[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    ("local", "central", "value"),
    [(6, 8, 1), (8, 10, 99), (30, None, 0xFF)],
    ids=["encrypted", "of an unknown method", "under another name"],
)
def test_a_zip_archive_whose_member_cannot_be_read_is_one_line(local, central, value, tmp_path):
    path = tmp_path / "a.pth"
    data = bytearray(zipped({"a/data.pkl": b"\x80\x02}."}))
    data[local] = value
    if central is not None:
        data[data.index(b"PK\1\2") + central] = value
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"^[^\n]*a\.pth: not a checkpoint, or a truncated or da"
    ):
        read_content(path)
