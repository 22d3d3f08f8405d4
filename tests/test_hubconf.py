"""The entry points of torch.hub, called from a copy of the checkout that is not installed."""

import ast
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from zoo_files import write_released

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo import catalogue

ROOT = Path(__file__).parents[1]
COUNTS = json.loads((Path(__file__).parent / "vectors" / "param_counts.json").read_text())["counts"]


def hub(name, **options):
    return torch.hub.load(str(ROOT), name, source="local", **options)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.MIRROR, tmp_path.as_uri())
    return tmp_path


@pytest.mark.parametrize("name", ["resnet50", "resnet50w2", "resnet50w4", "resnet50w5"])
def test_an_entry_point_has_the_published_size_and_no_classifier(name):
    with torch.device("meta"):
        model = hub(name)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]["trunk_parameters"]
    assert model.out_dim == COUNTS[name]["feature_dim"]


def test_a_classifier_where_it_is_asked_for():
    with torch.device("meta"):
        model = hub("resnet50", num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == COUNTS["resnet50"]["trunk_plus_fc"]
    assert model(torch.zeros(1, 3, 64, 64, device="meta")).shape == (1, 1000)


def test_all_callables_of_the_module_are_entry_points():
    names = runpy.run_path(str(ROOT / "hubconf.py"))
    public = [name for name, value in names.items() if callable(value) and name[0] != "_"]
    assert public == ["resnet50", "resnet50w2", "resnet50w4", "resnet50w5"]


@torch.no_grad()
def test_pretrained_has_the_features_of_torchvision_with_the_same_file(mirror):
    file = write_released(mirror / "swav_800ep_pretrain.pth.tar", "swav_resnet50")
    shutil.copy(file, mirror / "swav_400ep_pretrain.pth.tar")
    theirs = torchvision.models.resnet50()
    state = {key.removeprefix("module."): value for key, value in torch.load(file).items()}
    missing, _ = theirs.load_state_dict(state, strict=False)
    assert missing == ["fc.weight", "fc.bias"]
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 96, 96)
    wanted = theirs.eval()(images)
    for pretrained in (True, "swav_400ep"):
        ours = hub("resnet50", pretrained=pretrained).eval()
        assert (ours(images) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_weights_of_another_width_are_refused(mirror):
    write_released(mirror / "swav_RN50w2_400ep_pretrain.pth.tar", "swav_resnet50w2", shrink=True)
    with pytest.raises(CheckpointError, match=r"^zoo:swav_RN50w2_400ep: 53 of the trunk's 318"):
        hub("resnet50w2", pretrained=True)


PROGRAM = """
import sys, torch
with torch.device("meta"):
    print(torch.hub.load(sys.argv[1], "resnet50", source="local").out_dim)
for name, module in sys.modules.items():
    if name.partition(".")[0] == "ssl_platform":
        print(module.__file__)
"""


def test_a_copy_that_is_not_installed_imports_itself_and_what_is_listed(tmp_path):
    for name in ("ssl_platform", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    out_dim, *files = done.stdout.split()
    assert out_dim == "2048"
    assert len(files) > 10 and all(Path(file).is_relative_to(tmp_path) for file in files)
    imported = {package for file in files for package in imported_by(Path(file))}
    others = imported - set(sys.stdlib_module_names) - {"ssl_platform"}
    assert runpy.run_path(str(ROOT / "hubconf.py"))["dependencies"] == sorted(others)


def imported_by(file: Path) -> set[str]:
    """Packages that importing a module imports."""
    packages: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add((node.module or "").partition(".")[0])
    return packages
