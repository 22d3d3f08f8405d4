import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from zoo_files import released_state, write_released

from ssl_platform.zoo import catalogue
from ssl_platform.zoo.cli import main

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
from ssl_platform.zoo.cli import main
code = main(sys.argv[1:])
sys.exit(f"torch was imported" if "torch" in sys.modules else code)
"""


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Shrunken files under the released names, and an empty cache."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_released(folder / "swav_800ep_pretrain.pth.tar", "swav_resnet50", shrink=True)
    monkeypatch.setenv(catalogue.MIRROR, folder.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return folder


def output_of(capsys, *arguments, code=0):
    assert main([*map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


@pytest.mark.parametrize("command", [["list"], ["show", "swav_800ep"], ["show", "swav_80ep"]])
def test_list_and_show_do_without_torch(command):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *command], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == (3 if "swav_80ep" in command else 0), done.stderr
    assert "swav_800ep" in done.stdout + done.stderr


@pytest.mark.parametrize("tool", [["tools/zoo.py"], ["-m", "ssl_platform.zoo"]])
def test_both_ways_to_start_it(tool):
    done = subprocess.run(
        [sys.executable, *tool, "show", "selav2_400eb"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 3
    assert done.stderr == "error: zoo:selav2_400eb: no such model; did you mean 'selav2_400ep'?\n"


def test_list_has_a_line_for_each(capsys):
    lines = output_of(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(catalogue.models())


def test_show_tells_by_which_config_each_figure_is_measured(capsys):
    lines = output_of(capsys, "show", "swav_800ep").splitlines()
    (linear,) = (line for line in lines if line.startswith("config=benchmark/linear/"))
    assert linear.split()[0] == "config=benchmark/linear/imagenet1k/swav_800ep"
    assert linear.endswith("top1 75.3")


def test_fetch_tells_the_path_and_the_digest(mirror, capsys):
    out = output_of(capsys, "fetch", "swav_800ep")
    assert str(mirror / "swav_800ep_pretrain.pth.tar") in out and "sha256" in out


def test_fetch_of_what_the_mirror_lacks(mirror, capsys):
    error = output_of(capsys, "fetch", "swav_100ep", code=3)
    assert error == f"error: {mirror.as_uri()}/swav_100ep_pretrain.pth.tar: no such file\n"


def test_verify_tells_format_architecture_and_every_key(mirror, capsys):
    out = output_of(capsys, "verify", "zoo:swav_800ep", "--keys")
    assert "format      swav" in out
    assert "318 tensors of trunk.block=bottleneck trunk.layers=[3,4,6,3] trunk.width=8" in out
    assert "10 tensors of hidden_dim=256 out_dim=16 num_prototypes=[375] batch_norm=true" in out
    places = dict(line.split() for line in out.splitlines() if line.startswith("module."))
    assert places.keys() == released_state("swav_resnet50", shrink=True).keys()
    assert places["module.layer4.2.bn3.bias"] == "trunk.layer4.2.bn3.bias"
    assert places["module.prototypes.weight"] == "head.prototypes.0.weight"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("layer4.2.bn3.bias", "not whole; layer4.2.bn3.bias is missing"),
        ("projection_head.3.bias", "its head is no whole one ("),
    ],
)
def test_verify_names_what_is_missing(key, told, tmp_path, capsys):
    state = released_state("swav_resnet50", shrink=True)
    del state[f"module.{key}"]
    torch.save(state, tmp_path / "a.pth")
    error = output_of(capsys, "verify", tmp_path / "a.pth", code=3)
    assert error.startswith(f"error: {tmp_path}/a.pth: {told}") and error.count("\n") == 1


def test_verify_of_a_run(run, capsys):
    out = output_of(capsys, "verify", run)
    assert "format      ssl_platform" in out
    assert "trunk.stem_kernel=3 trunk.stem_stride=2 trunk.stem_pool=false" in out
    assert "head        10 tensors of hidden_dim=16 out_dim=8 num_prototypes=[12]" in out


def test_export_of_a_model_of_the_catalogue(mirror, tmp_path, capsys):
    output = tmp_path / "trunk.safetensors"
    out = output_of(capsys, "export", "zoo:swav_800ep", "--format", "safetensors", "-o", output)
    assert out == f"wrote {output}\nwrote {tmp_path}/trunk.md\n"


@pytest.mark.parametrize("command", [[], ["lst"], ["show"], ["export", "a", "-o", "b"]])
def test_a_wrong_command_line_is_exit_code_2(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


WRITER_PY = """
from pathlib import Path

from ssl_platform.registry import WRITERS
from ssl_platform.zoo.weights import Weights


@WRITERS.register()
def names(weights: Weights, path: Path) -> None:
    path.write_text("\\n".join(weights.trunk))
"""


def test_a_writer_of_a_plug_in_that_the_command_names(mirror, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_names.py").write_text(WRITER_PY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["export", "zoo:swav_800ep", "-o", "names.txt", "--format"]
    told = output_of(capsys, *command, "nmes", code=2)
    assert told.startswith("error: --format nmes: no such writer; choose from ")
    assert told.endswith(" (of a plug-in: --plugin)\n")
    names = {"onnx", "safetensors", "timm", "torch_export", "torchvision"}
    assert names <= set(re.split("[, ]+", told))  # other tests may have registered more
    plugin = ["--plugin", "my_names"]
    assert "did you mean 'names'?" in output_of(capsys, *command, "nmes", *plugin, code=2)
    assert output_of(capsys, *command, "names", *plugin) == "wrote names.txt\n"
    assert (tmp_path / "names.txt").read_text().startswith("conv1.weight\n")


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        ("my-names", "the name of a module, as in import my_writer"),
        ("no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_a_plug_in_that_is_not_there_is_told(plugin, told, mirror, tmp_path, capsys):
    command = ["export", "zoo:swav_800ep", "-o", tmp_path / "a", "--format", "timm"]
    error = output_of(capsys, *command, "--plugin", plugin, code=2)
    assert error == f"error: --plugin {plugin}: {told}\n"


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("/dev/null", "-o /dev/null: not a file; give one to be written, e.g. trunk.pth"),
        ("", "-o .: not a file; give one to be written, e.g. trunk.pth"),
        ("none/a", "-o none/a: there is no folder none"),
    ],
)
def test_export_writes_nothing_but_a_file_in_a_folder_that_exists(mirror, capsys, output, told):
    error = output_of(capsys, "export", "zoo:swav_800ep", "--format", "timm", "-o", output, code=2)
    assert error == f"error: {told}\n"
    assert Path("/dev/null").is_char_device()


def test_export_to_a_full_disk_is_told_in_words(mirror, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        error = output_of(
            capsys, "export", "zoo:swav_800ep", "--format", "timm", "-o", tmp_path / "a", code=5
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error == f"error: -o {tmp_path}/a: cannot be written (File too large)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


def test_a_working_directory_that_was_removed_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert output_of(capsys, "verify", "a.pth", code=2).startswith(
        "error: the working directory is gone"
    )
