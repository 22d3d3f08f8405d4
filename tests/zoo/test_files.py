"""Files that are no checkpoints, or worse: one line, and nothing in them is run."""

import ast
import os
import random
from pathlib import Path
from zipfile import ZipFile

import pytest
import safetensors.torch
import torch
import torchvision

import ssl_platform
from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.files import read_content
from ssl_platform.zoo.weights import read_weights

STATE = {"conv1.weight": torch.arange(8 * 3 * 49.0).reshape(8, 3, 7, 7), "bn1.bias": torch.ones(8)}


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
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>sign in</html>", "a web page, not a checkpoint"),
        (b"\n <html>404</html>", "a web page"),
        (b"just some text", "text, not a checkpoint"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "truncated or damaged"),
    ],
)
def test_what_is_no_checkpoint_is_told_in_a_line(content, message, tmp_path):
    path = tmp_path / "file.pth.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(str(path))
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [torch.save, safetensors.torch.save_file])
def test_truncated_and_mutated_files_raise_our_error_only(write, tmp_path):
    path = tmp_path / "file"
    write(STATE, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole[: rng.randrange(1, len(whole))])
        for _ in range(rng.randrange(20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_content(path)
        refused += 1
    assert refused == 100


@pytest.mark.parametrize("source", ["nowhere/at/all.pth", "run_that_is_not"])
def test_a_missing_file_names_itself(source):
    with pytest.raises(CheckpointError, match=rf"^{source}: no such file or run"):
        read_weights(source)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}: not the directory of a run"):
        read_weights(str(tmp_path))


def test_a_list_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_weights(str(tmp_path / "list.pth"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_of_torch_old_and_new(zipped, tmp_path):
    torch.save(STATE, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(str(tmp_path / "file.pth")).trunk
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_safetensors_are_read_whatever_they_are_called(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "weights.bin")
    found = read_weights(str(tmp_path / "weights.bin")).trunk
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_nothing_else_unpickles():
    """torch.load stands in two places, both with weights_only=True; pickle.load in none."""
    places = []
    for path in Path(ssl_platform.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in UNPICKLERS:
                options = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert options.get("weights_only") == "True", f"{path}: {ast.unparse(node)}"
                places.append(path.name)
    assert sorted(places) == ["checkpoint.py", "files.py"]


UNPICKLERS = {
    "torch.load", "pickle.load", "pickle.loads", "torch.hub.load_state_dict_from_url",
    "torch.hub.load", "joblib.load",
}  # fmt: skip


@pytest.mark.parametrize(
    ("local", "central", "value"),
    [(6, 8, 1), (8, 10, 99), (30, None, 0xFF)],
    ids=["encrypted", "of an unknown method", "under another name"],
)
def test_a_zip_archive_whose_member_cannot_be_read_is_one_line(local, central, value, tmp_path):
    path = tmp_path / "a.pth"
    with ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    data[local] = value
    if central is not None:
        data[data.index(b"PK\1\2") + central] = value
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"^[^\n]*a\.pth: not a checkpoint, or a truncated or da"
    ):
        read_content(path)
