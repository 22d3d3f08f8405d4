"""Exported weights, read back by the libraries they are for, on photographs."""

import errno
import os
from dataclasses import replace

import onnxruntime
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2 import functional as F

from ssl_platform.errors import CheckpointError, DiskError
from ssl_platform.models.timm import TimmTrunk
from ssl_platform.zoo.weights import Weights, read_weights
from ssl_platform.zoo.writers import export, trunk_of


@pytest.fixture(scope="module")
def photographs():
    """Two photographs, (2, 3, 256, 320) normalised."""
    images = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    images = F.resize(torch.stack(images), [256, 320])
    return F.normalize(F.to_dtype(images, scale=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A ResNet-18 whose batch norms have seen the world a little."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5)
    for _ in range(3):
        model(torch.randn(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return read_weights(str(path))


@pytest.fixture(scope="module")
def features(weights, photographs):
    with torch.no_grad():
        return trunk_of(weights)(photographs)


def resnet18_of_torchvision(state):
    model = torchvision.models.resnet18(num_classes=5)
    model.load_state_dict(state)
    return model


READERS = {
    "torchvision": lambda path: resnet18_of_torchvision(torch.load(path)),
    "timm": lambda path: timm.create_model("resnet18", num_classes=5, checkpoint_path=str(path)),
    "safetensors": lambda path: resnet18_of_torchvision(load_file(path)),
}


@pytest.mark.parametrize("format", READERS)
@torch.no_grad()
def test_the_library_reads_it_and_so_does_the_platform(
    format, weights, photographs, features, tmp_path
):
    export(weights, format, tmp_path / "a.pth")
    model = READERS[format](tmp_path / "a.pth").eval()
    assert torch.equal(model.fc.weight, weights.classifier["weight"])
    model.fc = torch.nn.Identity()
    assert (model(photographs) - features).abs().max() < 1e-5
    again = read_weights(str(tmp_path / "a.pth"))
    assert again.trunk_node == weights.trunk_node
    for part in ("trunk", "classifier"):
        old, new = getattr(weights, part), getattr(again, part)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)


def run_by_onnxruntime(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["features"], {"images": x.numpy()})[0])


@pytest.mark.parametrize(
    ("format", "load"),
    [
        ("onnx", run_by_onnxruntime),
        ("torch_export", lambda path: torch.export.load(path).module()),
    ],
)
def test_a_program_takes_images_of_any_size(format, load, weights, photographs, features, tmp_path):
    export(weights, format, tmp_path / "a.pt2")
    program = load(tmp_path / "a.pt2")
    assert (program(photographs) - features).abs().max() < 1e-5
    assert (program(photographs[:1]) - features[:1]).abs().max() < 1e-5


def test_a_classifier_of_another_layer_is_left_out(weights, tmp_path, caplog):
    other = {"weight": torch.ones(5, 256), "bias": torch.ones(5)}
    export(replace(weights, classifier=other), "torchvision", tmp_path / "a.pth")
    assert torch.load(tmp_path / "a.pth").keys() == weights.trunk.keys()
    assert "its classifier is of another layer and left out" in caplog.text


def test_a_card_tells_of_the_exported_file(weights, tmp_path):
    written = export(weights, "safetensors", tmp_path / "a.safetensors")
    assert written == [tmp_path / "a.safetensors", tmp_path / "a.md"]
    card = (tmp_path / "a.md").read_text()
    assert read_weights(str(tmp_path / "a.safetensors")).sha256 in card
    assert "`trunk=resnet18`" in card and weights.sha256 in card


def test_the_card_of_a_run_tells_how_it_was_trained(run, tmp_path):
    export(read_weights(str(run)), "safetensors", tmp_path / "a.safetensors")
    card = (tmp_path / "a.md").read_text()
    for told in ("`SwAVLoss`", "`pretrain/swav/quickstart`", "1 of 1", "images_per_second"):
        assert told in card


@pytest.fixture
def vit(tmp_path):
    trunk = TimmTrunk(model="vit_tiny_patch16_224", options={"depth": 1})
    node = {"name": "TimmTrunk", "model": "vit_tiny_patch16_224", "options": {"depth": 1}}
    return Weights("run", tmp_path, "ssl_platform", "0", trunk.state_dict(), trunk_node=node)


def test_a_trunk_of_timm_goes_back_to_timm(vit, tmp_path):
    export(vit, "timm", tmp_path / "a.pth")
    model = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
    model.load_state_dict(torch.load(tmp_path / "a.pth"))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), trunk_of(vit)(images))


def test_a_trunk_of_timm_as_a_program(vit, tmp_path):
    export(vit, "torch_export", tmp_path / "a.pt2")
    images = torch.randn(3, 3, 224, 224)
    program = torch.export.load(tmp_path / "a.pt2").module()
    with torch.no_grad():
        assert (program(images) - trunk_of(vit)(images)).abs().max() < 1e-5


def test_torchvision_has_no_names_for_other_trunks(vit, tmp_path):
    with pytest.raises(CheckpointError, match="no ResNet"):
        export(vit, "torchvision", tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_architecture_has_no_program(tmp_path):
    weights = Weights(
        "file", tmp_path, "torchvision", "0", {"conv1.weight": torch.ones(8, 3, 3, 3)}
    )
    with pytest.raises(CheckpointError, match="do not tell the whole architecture; export a run"):
        export(weights, "onnx", tmp_path / "a.onnx")


@pytest.mark.parametrize("format", ["torchvision", "safetensors"])
def test_a_disk_that_fails_leaves_the_old_file(format, weights, tmp_path, monkeypatch):
    (tmp_path / "a.file").write_text("old")
    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(DiskError, match=r"cannot be written .*No space left on device"):
        export(weights, format, tmp_path / "a.file")
    assert [path.name for path in tmp_path.iterdir()] == ["a.file"]
    assert (tmp_path / "a.file").read_text() == "old"


def failing(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
