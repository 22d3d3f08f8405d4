"""Evaluations that train, through the public functions: on a tiny run and on files of the zoo."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import tool
from PIL import Image
from torch import nn
from zoo_files import write_released

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.config.options import ParameterGroup
from ssl_platform.engine.param_groups import parameter_groups
from ssl_platform.errors import ConfigError
from ssl_platform.evaluation.results import Results
from ssl_platform.zoo.trained_run import TrainedRun
from ssl_platform.zoo.weights import read_weights

SMALL = [
    "data.train.num_samples=96",
    "data.val.num_samples=40",
    "data.batch_size=32",
    "num_epochs=3",
    "launch.threads=1",
    "loggers.tensorboard.enabled=false",
]
ROWS = {  # of the catalogue, one of each layout, and whose layout the released file has
    "swav_800ep": "swav_resnet50",
    "deepclusterv2_400ep": "deepclusterv2_or_selav2_resnet50",
    "swav_RN50w2_400ep": "swav_resnet50w2",
    "swav_RN50w4_400ep": "swav_resnet50w4",
    "swav_RN50w5_400ep": "swav_resnet50w5",
}


def run(*overrides: str) -> dict[str, Any]:
    return ssl_platform.run(compose(list(overrides)))


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """Two classes of three noise images each, in train/ and val/."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for number in range(6):
            folder = tmp_path / "images" / part / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


def on_shapes(config: str, checkpoint: Path, output_dir: Path, *overrides: str) -> list[str]:
    return [
        f"config=benchmark/{config}", "data=shapes", f"checkpoint={checkpoint}",
        f"output_dir={output_dir}", *SMALL, *overrides,
        *([] if any(o.startswith("baselines") for o in overrides) else ["baselines=false"]),
    ]  # fmt: skip


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# ---- on a run of this platform


def test_a_linear_evaluation_trains_the_head_alone_and_says_what_it_is(pretrained, tmp_path):
    before = files_of(pretrained)
    output_dir = tmp_path / "linear"
    results = run(*on_shapes("linear/folder", pretrained, output_dir))
    evaluated = TrainedRun.open(str(output_dir)).model()
    trunk = read_weights(str(pretrained)).trunk
    assert all(torch.equal(v, trunk[k]) for k, v in evaluated.trunk.state_dict().items())
    assert evaluated.heads["linear"].linear.bias.any()
    assert files_of(pretrained) == before

    kept = Results.read(output_dir)
    assert kept.protocol == "linear, SwAV's: 3 epochs, batch 32, frozen trunk"
    assert set(kept.figures) == {"linear (best epoch)", "linear (last epoch)"}
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    curve = [line["val/linear/top1"] for line in lines if "val/linear/top1" in line]
    assert len(curve) == 3
    assert kept.figures["linear (last epoch)"]["top1"] == curve[-1]
    best = kept.figures["linear (best epoch)"]
    assert best["top1"] == max(curve)
    assert curve[int(best["epoch"]) - 1] == max(curve)
    assert kept.weights["source"] == str(pretrained)
    assert kept.weights["sha256"] == read_weights(str(pretrained)).sha256
    assert results["evaluation"]["last"]["linear"]["top1"] == curve[-1]
    assert kept.details == {} and not (output_dir / "baselines").exists()


def test_two_processes_come_to_the_same_head(pretrained, tmp_path):
    heads = []
    for processes in (1, 2):
        output_dir = tmp_path / str(processes)
        done = tool(
            *on_shapes("linear/folder", pretrained, output_dir, f"launch.processes={processes}"),
            "data.train.num_samples=80",  # the last batch is smaller
        )
        assert done.returncode == 0, done.stderr
        heads.append(TrainedRun.open(str(output_dir)).model().heads["linear"].linear.weight)
    assert torch.allclose(*heads, rtol=0, atol=1e-3 * heads[0].abs().max().item())


def test_every_head_of_the_layers_is_reported_by_name(pretrained, tmp_path):
    heads = [
        "~heads.conv1", "~heads.res5", "~heads.res3", "~heads.res4",
        "heads.res2.pool={kernel: 3, stride: 2, padding: 0}",
    ]  # fmt: skip
    overrides = on_shapes("linear/imagenet1k/vissl_layers", pretrained, tmp_path / "run", *heads)
    overrides += ["schedule.milestones=[1]"]
    assert problems(*overrides) == [
        "heads.res2.layer=layer1: its map is 8 x 12 x 12 on the crops of data.transform and 8 x 16 "
        "x 16 on those of data.eval_transform, of 32 pixels; give all of them the same size"
    ]
    results = run(*overrides, "data.transform.crops.large.size=32")
    assert list(results["evaluation"]["last"]) == ["res2", "res5avg", "res5avg_bn"]


def test_fine_tuning_moves_the_trunk_slowly_and_the_head_fast(pretrained, tmp_path):
    output_dir = tmp_path / "run"
    overrides = on_shapes("semi_supervised/imagenet1k_1pct", pretrained, output_dir)
    results = run(*overrides, "train_fraction=0.5", "schedule.milestones=[2]")
    tuned = TrainedRun.open(str(output_dir))
    assert tuned.state["step"] == 3 * 2  # 48 or so of 96 images, in batches of 32
    groups = tuned.state["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.02 * 0.2, 5 * 0.2])
    trunk = read_weights(str(pretrained)).trunk
    assert not torch.equal(tuned.state["model"]["trunk.conv1.weight"], trunk["conv1.weight"])
    assert results["evaluation"]["protocol"].endswith("batch 32, whole network")


# ---- on files of the zoo


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    """A mirror of the zoo. Only the first file is whole: the others, their widths divided until the
    stem has 8 channels, hold the same names, and would need gigabytes."""
    folder = tmp_path_factory.mktemp("zoo")
    for name, layout in ROWS.items():
        file = folder / f"{name}_pretrain.pth.tar"
        write_released(file, layout, shrink=name != "swav_800ep")
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_zoo_runs(name, mirror, labeled, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_ZOO_MIRROR", mirror.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    overrides = [
        f"config=benchmark/linear/imagenet1k/{name}", f"data.path={labeled}",
        f"output_dir={tmp_path / 'run'}", "num_epochs=1", "data.batch_size=4",
        "data.num_workers=0", "launch.threads=1", "data.transform.crops.large.size=64",
        "data.eval_transform.resize=64", "data.eval_transform.size=64",
        "loggers.tensorboard.enabled=false", "baselines=false",
        *([] if name == "swav_800ep" else ["trunk.width=8"]),
    ]  # fmt: skip
    results = run(*overrides)
    kept = Results.read(tmp_path / "run")
    assert kept.weights["source"] == f"zoo:{name}"
    assert kept.weights["format"] == "swav"
    assert kept.protocol == "linear, SwAV's: 1 epochs, batch 4, frozen trunk"
    state = TrainedRun.open(str(tmp_path / "run")).state["model"]
    released = read_weights(f"zoo:{name}").trunk
    assert all(torch.equal(state[f"trunk.{key}"], value) for key, value in released.items())
    assert results["evaluation"]["last"]["linear"] == kept.figures["linear (last epoch)"]


# ---- mistakes


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        run(*overrides)
    return caught.value.problems


def test_mistakes_get_one_line_each(pretrained, labeled, tmp_path):
    folder = "config=benchmark/linear/folder"
    assert problems(folder, "data=shapes") == [
        "checkpoint=null: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>, or "
        "trunk=... to start from random ones"
    ]
    assert problems(folder, "data=shapes", "checkpoint=/nowhere") == [
        f"checkpoint=/nowhere: no such file or run (working directory: {Path.cwd()}); a model of "
        "the catalogue is zoo:NAME"
    ]
    wrong = problems(folder, "data=shapes", f"checkpoint={pretrained}", "trunk=resnet18")
    assert len(wrong) == 1
    assert wrong[0].startswith(f"checkpoint={pretrained}: ")
    assert "conv1.weight has the shape [8, 3, 3, 3], the trunk's has [64, 3, 7, 7]" in wrong[0]
    layer = "heads.linear.layer=layer5"
    assert problems(folder, "data=shapes", f"checkpoint={pretrained}", layer) == [
        "heads.linear.layer=layer5: the trunk has no such layer; pooled, or one of conv1, bn1, "
        "relu, maxpool, layer1, layer2, layer3, layer4, avgpool"
    ]
    flat = labeled / "train" / "class0"
    assert problems(
        folder, f"data.train.path={flat}", f"data.val.path={labeled / 'val'}",
        f"checkpoint={pretrained}", "heads.linear.num_classes=2",
    ) == [
        "loss: the training images have no labels of two classes; use a folder with a folder for "
        "each class"
    ]  # fmt: skip
    unlabeled = [
        folder, f"data.train.path={labeled / 'train'}", f"data.val.path={flat}",
        f"checkpoint={pretrained}", "launch.threads=1",
    ]  # fmt: skip
    unlabeled.append(f"output_dir={tmp_path / 'run'}")
    for given in (unlabeled, [*unlabeled, "baselines=false"]):
        assert problems(*given) == [
            "data.val: these images have no classes; in a folder, each class has its own folder; "
            "of torchvision's sets, choose a split with labels"
        ]
    assert problems(*unlabeled[:-1], "data.val=null", "baselines=false") == [
        "data.val: hooks.evaluate needs labelled validation images; set data.val.path=..."
    ]
    (labeled / "val" / "class1").rename(labeled / "val" / "other")
    unlike = [o.replace(str(flat), str(labeled / "val")) for o in unlabeled]
    assert problems(*unlike, "baselines=false") == [
        "data.val: its 2 classes are not the 2 of data.train: only in data.train class1, only in "
        "data.val other"
    ]
    assert not (tmp_path / "run").exists()


def test_parameter_groups_take_what_they_match_first():
    model = nn.ModuleDict({"trunk": nn.Linear(2, 2), "heads": nn.BatchNorm1d(2)})
    rules = [ParameterGroup("heads.bias", 3.0, 0.0), ParameterGroup("heads.*", 2.0, None)]
    rest, bias, weight = parameter_groups(model, rules)
    assert rest == {"params": list(model["trunk"].parameters())}
    assert bias == {"params": [model["heads"].bias], "lr_scale": 3.0, "weight_decay": 0.0}
    assert weight == {"params": [model["heads"].weight], "lr_scale": 2.0}
    with pytest.raises(ValueError) as caught:
        parameter_groups(model, [ParameterGroup("head.*", 1.0, None)])
    assert str(caught.value) == (
        "match=head.*: no parameter is named so; names begin with trunk. or heads."
    )


def test_baselines_stand_beside_a_trained_figure(pretrained, tmp_path, capsys):
    output_dir = tmp_path / "run"
    cache = f"baselines.cache.folder={tmp_path / 'features'}"
    run(*on_shapes("linear/folder", pretrained, output_dir, cache))
    beside = Results.read(output_dir / "baselines")
    assert beside.protocol.startswith("cached centre-crop protocol")
    assert set(beside.baselines) == {"random init", "raw pixels", "raw pixels, PCA 96"}
    details = Results.read(output_dir).details[beside.protocol]
    assert details == {"weights": beside.figures, **beside.baselines}
    assert beside.protocol in capsys.readouterr().out

    wrong = on_shapes("linear/folder", pretrained, output_dir, "baselines.pca_components=many")
    assert problems(*wrong) == [
        "baselines.pca_components=many: should be a valid integer, unable to parse string as an "
        "integer"
    ]
