"""The platform's transforms and sets in torch's data sets and loaders."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ssl_platform import api
from ssl_platform.errors import ConfigError

SMALL = {"crops": {"large": {"size": 16}, "small": {"size": 8, "count": 2}}}


class Fakes(torchvision.datasets.FakeData):
    """With the transform, such as any set of torchvision takes one."""

    def __init__(self, transform, size=6):
        super().__init__(size, (3, 24, 20), 2, transform)


def epoch_of(loader: DataLoader) -> torch.Tensor:
    return torch.cat([batch[0][0] for batch in loader])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_of_torchvision_gives_other_crops_each_epoch_and_the_same_ones_for_a_seed(
    num_workers,
):
    loader = DataLoader(Fakes(api.multi_crop(**SMALL)), 3, num_workers=num_workers)
    torch.manual_seed(0)
    first, second = epoch_of(loader), epoch_of(loader)
    assert first.shape == (6, 3, 16, 16) and first.dtype == torch.float32
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(epoch_of(loader), first) and torch.equal(epoch_of(loader), second)


class OneImage(Dataset):
    def __init__(self, transform):
        self.transform, self.image = transform, np.arange(24 * 20 * 3, dtype=np.uint8)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return (self.transform(self.image.reshape(24, 20, 3)),)


def test_no_two_workers_draw_alike():
    torch.manual_seed(0)
    crops = epoch_of(DataLoader(OneImage(api.multi_crop(**SMALL)), 1, num_workers=2))
    assert len(torch.unique(crops, dim=0)) == 4


def test_an_image_of_every_kind_gives_the_same_tensor(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    kinds = (
        pixels,
        Image.fromarray(pixels),
        torch.from_numpy(pixels).permute(2, 0, 1),
        str(tmp_path / "image.png"),
        tmp_path / "image.png",
    )
    transform = api.center_crop(resize=24, size=16)
    first, *others = map(transform, kinds)
    assert first.shape == (3, 16, 16)
    assert all(torch.equal(first, other) for other in others)
    grey = transform(pixels[..., 0])
    mean, std = transform.normalize.mean, transform.normalize.std
    channels = [c * s + m for c, s, m in zip(grey, std, mean, strict=True)]
    torch.testing.assert_close(channels[0], channels[1])


def test_values_are_those_of_a_run():
    transform = api.center_crop("shapes")
    crop, label, index = api.images("shapes", transform, num_samples=3)[2]
    raw = api.images("shapes", transform, num_samples=3).dataset.read(2)
    torch.testing.assert_close(crop, (torch.from_numpy(raw).permute(2, 0, 1) / 255 - 0.5) / 0.25)
    assert (label, index) == (2, 2)


def test_a_folder_and_a_list_are_read(photographs, tmp_path):
    transform = api.center_crop(resize=20, size=16)
    folder = api.images(str(photographs), transform)
    assert len(folder) == 12 and {label for _, label, _ in folder} == {0, 1, 2}
    rows = [f"{path},{n}" for n, path in enumerate(sorted(photographs.rglob("*.jpg")))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    assert len(api.images(tmp_path / "list.csv", transform)) == 12


def test_any_set_gets_positions():
    (crops, label, index) = api.WithIndex(Fakes(api.multi_crop(**SMALL)))[4]
    assert [len(crop[0]) for crop in crops] == [16, 16, 8, 8]
    assert label in (0, 1) and index == 4


REFUSED = {
    "no set of that name; did you mean 'shapes'?": lambda: api.multi_crop("shape"),
    "data: a folder of images, a file that": lambda: api.multi_crop(3),
    "transform.flipp=1: MultiCrop has no such option": lambda: api.multi_crop(flipp=1),
    "transform.crops.large.size=-1: at least 1": lambda: api.multi_crop(
        crops={"large": {"size": -1}}
    ),
    "split=test: data=shapes has train and val": lambda: api.images(
        "shapes", api.center_crop("shapes"), split="test"
    ),
    "train.path: ImageFolder needs a value": lambda: api.images("imagenet", api.center_crop()),
}


@pytest.mark.parametrize("told", REFUSED)
def test_a_wrong_argument_is_one_line(told):
    with pytest.raises(ConfigError) as caught:
        REFUSED[told]()
    (line,) = caught.value.problems
    assert told in line


@pytest.mark.parametrize("image", [3.0, np.zeros((4, 4, 3)), torch.zeros(3, 4, 4), None])
def test_what_is_no_image_is_told_what_would_be_one(image):
    with pytest.raises(TypeError, match="a transform takes an image of Pillow, a path, an array"):
        api.center_crop()(image)
