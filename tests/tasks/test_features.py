"""Features of any images by layer, as the command line writes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.errors import ConfigError
from ssl_platform.evaluation.feature_files import FeatureFiles
from ssl_platform.models.layers import LayerOutputs
from ssl_platform.zoo.trained_run import TrainedRun

ROUNDING = 1e-3  # of a feature of size 1; those of two images are further apart
TASK = [
    "config=analysis/features",
    "data.eval_transform={name: CenterCrop, resize: 48, size: 32}",
    "data.num_workers=0",
    "layers=[layer3,avgpool,pooled]",
    "launch.threads=1",
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(checkpoint: Path, images: Path, *overrides: str) -> FeatureFiles:
    given = [f"checkpoint={checkpoint}", f"data.path={images}"]
    return ssl_platform.run(compose([*TASK, *given, *overrides]))


def outputs_by_hand(run: Path, images: Path) -> dict[str, np.ndarray]:
    trunk = TrainedRun.open(str(run)).model().trunk
    dataset = ImageFolder(path=str(images))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.228, 0.224, 0.225])
    crops = []
    for index in range(len(dataset)):
        photograph = Image.fromarray(dataset.read(index))
        assert photograph.size == (64, 48)
        crops.append(np.asarray(photograph.crop((16, 8, 48, 40))))
    pixels = (torch.from_numpy(np.stack(crops)).float() / 255 - mean) / std
    with torch.no_grad():
        outputs = LayerOutputs(trunk, ["layer3", "avgpool", "pooled"])(pixels.permute(0, 3, 1, 2))
    return {layer: output.numpy() for layer, output in outputs.items()}


@pytest.mark.parametrize("pool", [True, False])
def test_each_layer_is_a_file_of_all_images_in_order(pool, pretrained, photographs, here):
    write(pretrained, photographs, f"pool={pool}", "name=mine")
    expected = outputs_by_hand(pretrained, photographs)
    folder = here / "runs/mine/features"
    for layer, values in expected.items():
        array = np.load(folder / f"{layer}.npy", mmap_mode="r")
        if pool and values.ndim == 4:
            values = values.mean(axis=(2, 3))
        np.testing.assert_allclose(array, values, atol=ROUNDING)
    dataset = ImageFolder(path=str(photographs))
    index = parquet.read_table(folder / "index.parquet")
    assert index["image"].to_pylist() == [dataset.describe(i) for i in range(12)]
    assert index["label"].to_pylist() == dataset.labels.tolist()


def test_unreadable_images_are_counted_and_named(pretrained, photographs, capsys):
    (photographs / "class1" / "4.jpg").write_bytes(b"no image")
    files = write(pretrained, photographs)
    (row,) = files.unreadable
    assert ImageFolder(path=str(photographs)).describe(row).endswith("class1/4.jpg")
    line = f"1 images cannot be read, their rows are NaN: {photographs}/class1/4.jpg\n"
    assert line in capsys.readouterr().out


def test_images_of_any_part_can_be_looked_at(pretrained):
    files = ssl_platform.run(
        compose(
            [
                "config=analysis/features", f"checkpoint={pretrained}", "data=shapes",
                "data.val.num_samples=20", "split=val", "dtype=float16", "launch.threads=1",
            ]
        )
    )  # fmt: skip
    assert files.array("pooled").shape == (20, 64)
    assert files.array("pooled").dtype == np.float16


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "data.path=. checkpoint=???",
            "checkpoint: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>",
        ),
        ("data.path=???", "data.path: needs a value; set data.path=..."),
        (
            "layers=[layer9]",
            "layers: layer=layer9: the trunk has no such layer; pooled, or one of conv1, bn1, "
            "relu, maxpool, layer1, layer2, layer3, layer4, avgpool",
        ),
        ("layers=[]", "layers=[]: one name or more, each once"),
        ("split=val", "split=val: data.val is null; use split=train"),
        ("dtype=int8", "dtype=int8: should be 'float16' or 'float32'"),
    ],
)
def test_mistakes_are_told_in_one_line(overrides, line, pretrained, photographs):
    given = [f"checkpoint={pretrained}", f"data.path={photographs}"]
    with pytest.raises(ConfigError) as error:
        compose([*TASK, *given, *overrides.split()])
    assert error.value.problems == [line]
