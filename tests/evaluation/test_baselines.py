import pytest
import torch
from torch import Tensor, nn

from ssl_platform.evaluation.baselines import LabelledFeatures, measure_baselines, pixels


class Pool(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def some_images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        3 + torch.rand(30, 3, 8, 8, generator=generator),
        3 + torch.rand(6, 3, 8, 8, generator=generator),
    )


def features_of_baselines(pca_components: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    images = some_images()

    def extract(name, embed):
        return tuple(LabelledFeatures(embed(part), torch.arange(len(part))) for part in images)

    def measure(train, test):
        assert train.labels.equal(torch.arange(30)) and test.labels.equal(torch.arange(6))
        return train.features[:], test.features[:]

    return measure_baselines(extract, measure, Pool(), pca_components=pca_components)


def test_baselines_are_the_untrained_trunk_pixels_and_their_components():
    found = features_of_baselines(5)
    assert list(found) == ["random init", "raw pixels", "raw pixels, PCA 5"]
    train, test = some_images()
    assert found["random init"][1].equal(Pool()(test))
    mean = train.flatten(1).mean(0)
    torch.testing.assert_close(found["raw pixels"][1], test.flatten(1) - mean)
    components = found["raw pixels, PCA 5"]
    assert [part.shape for part in components] == [(30, 5), (6, 5)]
    singular = torch.linalg.svdvals(train.flatten(1) - mean)[:5]
    torch.testing.assert_close(components[0].norm(dim=0), singular, rtol=1e-4, atol=0)


def test_components_can_be_left_out():
    assert list(features_of_baselines(None)) == ["random init", "raw pixels"]


@pytest.mark.parametrize(("side", "dim"), [(8, 3 * 8 * 8), (64, 3 * 32 * 32)])
def test_pixels_of_large_images_are_shrunk(side, dim):
    images = torch.ones(2, 3, side, side)
    assert pixels(images).shape == (2, dim)
    assert pixels(images).eq(1).all()
