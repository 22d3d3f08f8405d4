"""Features in files: what is written is what was computed, by any number of processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loaders import OPTIONS
from pyarrow import parquet
from ranks import run_on_ranks

from ssl_platform import distributed
from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import SequentialSampler
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.errors import ConfigError, DataError
from ssl_platform.evaluation.feature_files import FeatureFiles, write_features

ROUNDING = 32 * 32 * 2**-24  # at most, of the mean of so many pixels from 0 to 1
POSITIONS = np.array([7, 0, 3, 11, 4])


def embed(images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"mean": images.mean(dim=(2, 3)), "map": images[:, :2, ::8, ::16]}


def write(
    folder: Path,
    photographs: Path,
    rank: int = 0,
    world_size: int = 1,
    dtype: str = "float32",
    embed=embed,
) -> FeatureFiles:
    loader = Loader(
        ImageFolder(path=str(photographs)),
        CenterCrop(resize=32, size=32),
        SequentialSampler(POSITIONS, rank, world_size),
        replace(
            OPTIONS, batch_size=2, normalize=Normalize([0.0] * 3, [1.0] * 3), max_bad_fraction=1.0
        ),
        torch.device("cpu"),
    )
    return write_features(
        folder, embed, loader, POSITIONS, dtype=dtype, provenance={"weights": "none"}
    )


def write_on_this_rank(folder: Path, photographs: Path) -> FeatureFiles:
    return write(folder, photographs, distributed.rank(), distributed.world_size())


def write_on(num_ranks: int, folder: Path, photographs: Path) -> FeatureFiles:
    if num_ranks == 1:
        return write(folder, photographs)
    return run_on_ranks(write_on_this_rank, num_ranks, folder, photographs)[0]


def expected(photographs: Path) -> dict[str, np.ndarray]:
    dataset, crop = ImageFolder(path=str(photographs)), CenterCrop(resize=32, size=32)
    rng = np.random.default_rng(0)
    crops = np.stack([crop(dataset.read(i), rng)[0] for i in POSITIONS.tolist()])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    return {layer: values.numpy() for layer, values in embed(images).items()}


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_each_row_is_the_feature_of_its_image(num_ranks, tmp_path, photographs):
    folder = tmp_path / "features"
    files = write_on(num_ranks, folder, photographs)
    for layer, values in expected(photographs).items():
        array = np.load(folder / f"{layer}.npy", mmap_mode="r")
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, values, atol=ROUNDING)
    assert files == FeatureFiles.read(folder)
    assert files.shapes == {"mean": [3], "map": [2, 4, 2]}
    dataset = ImageFolder(path=str(photographs))
    assert parquet.read_table(folder / "index.parquet").to_pydict() == {
        "image": [dataset.describe(position) for position in POSITIONS.tolist()],
        "uri": [f"file://{dataset.describe(position)}" for position in POSITIONS.tolist()],
        "position": POSITIONS.tolist(),
        "readable": [True] * 5,
        "label": dataset.labels[POSITIONS].tolist(),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "photographs"]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_an_unreadable_image_is_marked_and_its_row_is_nan(num_ranks, tmp_path, photographs):
    before = expected(photographs)
    bad = ImageFolder(path=str(photographs)).describe(3)
    Path(bad).write_bytes(b"no image")
    folder = tmp_path / "features"
    files = write_on(num_ranks, folder, photographs)
    assert files.unreadable == [2]
    assert parquet.read_table(folder / "index.parquet")["readable"].to_pylist() == [
        True, True, False, True, True,
    ]  # fmt: skip
    for layer, values in before.items():
        array = files.array(layer)
        assert np.isnan(array[2]).all()
        np.testing.assert_allclose(np.delete(array, 2, 0), np.delete(values, 2, 0), atol=ROUNDING)


def test_features_of_16_bits_are_those_of_32_rounded(tmp_path, photographs):
    write(tmp_path / "features", photographs, dtype="float16")
    array = np.load(tmp_path / "features" / "mean.npy", mmap_mode="r")
    assert array.dtype == np.float16
    mean = expected(photographs)["mean"]
    np.testing.assert_allclose(array, mean, rtol=2**-11, atol=ROUNDING)


def test_features_that_16_bits_do_not_hold_are_refused(tmp_path, photographs):
    with pytest.raises(DataError) as error:
        write(
            tmp_path / "features", photographs, dtype="float16",
            embed=lambda images: {"large": 1e6 * images.mean(dim=(2, 3))},
        )  # fmt: skip
    assert str(error.value) == "features of layer large are too large for float16: use float32"
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_refused_with_the_image(tmp_path, photographs, bad):
    def embed(images: torch.Tensor) -> dict[str, torch.Tensor]:
        values = images.mean(dim=(2, 3))
        if len(values) > 1:
            values[1, 0] = bad
        return {"odd": values}

    with pytest.raises(DataError) as error:
        write(tmp_path / "features", photographs, embed=embed)
    image = ImageFolder(path=str(photographs)).describe(int(POSITIONS[1]))
    assert str(error.value) == f"features of layer odd are not finite, first of image {image}"
    assert not (tmp_path / "features").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, photographs):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as error:
        write(tmp_path / "file" / "features", photographs)
    assert str(error.value) == f"{tmp_path}/file/features: cannot be written (Not a directory)"


@pytest.mark.parametrize("damage", ["shorter", "gone", "about", "other shape"])
def test_damaged_files_are_no_features(damage, tmp_path, photographs):
    folder = tmp_path / "features"
    write(folder, photographs)
    if damage == "shorter":
        (folder / "mean.npy").write_bytes((folder / "mean.npy").read_bytes()[:-4])
    elif damage == "gone":
        (folder / "mean.npy").unlink()
    elif damage == "about":
        (folder / "features.json").write_text("{")
    else:
        np.save(folder / "mean.npy", np.zeros((5, 2), np.float32))
    assert FeatureFiles.read(folder) is None


def test_writing_to_an_array_leaves_the_file_alone(tmp_path, photographs):
    files = write(tmp_path / "features", photographs)
    files.array("mean")[:] = 0
    assert files.array("mean").any()


def test_two_jobs_do_not_write_the_same_features_and_a_dead_one_does_not_count(
    tmp_path, photographs
):
    folder = tmp_path / "features"

    def write_again(images: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(images) > 1 and not folder.exists():
            with pytest.raises(ConfigError) as error:
                write(folder, photographs)
            assert str(error.value) == f"{folder}: another job is writing these features"
            calls.append(images)
        return embed(images)

    calls: list[torch.Tensor] = []
    write(folder, photographs, embed=write_again)
    assert calls
    mean = np.load(folder / "mean.npy")
    np.testing.assert_allclose(mean, expected(photographs)["mean"], atol=ROUNDING)

    def die(images: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(images) > 1:
            raise KeyboardInterrupt
        return embed(images)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "other", photographs, embed=die)
    assert not (tmp_path / "other").exists()
    files = write(tmp_path / "other", photographs)
    assert FeatureFiles.read(tmp_path / "other") == files
