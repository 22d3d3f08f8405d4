import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.pairs import crop_colours, figures_of_pairs, sums_of_pairs
from ssl_platform.ops.sums import added

N, DIM = 400, 16


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def figures(embeddings: tuple[Tensor, Tensor], crops: tuple[Tensor, Tensor]) -> dict[str, float]:
    sums = sums_of_pairs(embeddings, (crop_colours(crops[0]), crop_colours(crops[1])))
    named = figures_of_pairs(sums, torch.tensor(float(len(crops[0]))))
    return {name: value.item() for name, value in named.items()}


def lit(light: Tensor, seed: int) -> Tensor:
    """Noise (N, 3, 8, 8), each image under a light (N, 3)."""
    return 0.3 * drawn(seed, len(light), 3, 8, 8) + light[:, :, None, None]


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(dim=0), dim=1)


NOISE = (drawn(0, N, 3, 8, 8), drawn(1, N, 3, 8, 8))


def test_equal_embeddings_agree_and_unrelated_ones_do_not():
    rows = unit(drawn(2, N, DIM))
    assert figures((rows, rows), NOISE)["agreement"] == pytest.approx(1)
    other = figures((rows, unit(drawn(3, N, DIM))), NOISE)
    assert other["agreement"] == pytest.approx(0, abs=0.05)
    half = unit(rows + 1.0 * unit(drawn(4, N, DIM))), unit(rows + 1.0 * unit(drawn(5, N, DIM)))
    assert figures(half, NOISE)["agreement"] == pytest.approx(0.5, abs=0.06)


def test_what_colour_explains_is_told_from_brightness_and_from_content():
    light = drawn(6, N, 3)
    crops = lit(light, 7), lit(light, 8)
    content = unit(drawn(9, N, DIM))
    of_content = figures((content, content), crops)
    assert of_content["colour"] < 0.15
    assert of_content["brightness"] < 0.05
    hue = unit((light - light.mean(dim=1, keepdim=True)) @ drawn(10, 3, DIM))
    of_hue = figures((hue, hue), crops)
    assert of_hue["colour"] > 0.8
    assert of_hue["brightness"] < 0.05
    level = unit(light.mean(dim=1, keepdim=True) * drawn(11, 1, DIM))
    of_level = figures((level, level), crops)
    assert of_level["brightness"] > 0.5
    assert of_level["light_agreement"] > 0.4


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_grey_images_and_those_of_other_channels_have_figures(channels):
    grey = 0.3 * drawn(12, N, 1, 8, 8) + drawn(13, N, 1)[:, :, None, None]
    rows = unit(grey.mean(dim=(2, 3)) * drawn(14, 1, DIM))
    found = figures((rows, rows), (grey.expand(-1, channels, -1, -1),) * 2)
    assert found["brightness"] > 0.5
    assert abs(found["colour"]) < 0.1


def test_constant_images_explain_nothing():
    rows, black = unit(drawn(15, N, DIM)), torch.zeros(N, 3, 4, 4)
    found = figures((rows, rows), (black, black))
    assert found["colour"] == pytest.approx(0, abs=1e-3)
    assert found["brightness"] == pytest.approx(0, abs=1e-3)


def test_too_few_images_say_nothing_of_colours():
    rows, crops = unit(drawn(16, 40, DIM)), lit(drawn(17, 40, 3), 18)
    found = figures((rows, rows), (crops, crops))
    assert found["agreement"] == pytest.approx(1)
    assert found["colour"] != found["colour"]


def test_sums_of_batches_are_those_of_all_images():
    rows = unit(drawn(19, N, DIM)), unit(drawn(20, N, DIM))
    colours = crop_colours(NOISE[0]), crop_colours(NOISE[1])
    whole = sums_of_pairs(rows, colours)
    total: dict[str, Tensor] = {}
    for part in torch.arange(N).split(150):
        of_part = [tuple(both[part] for both in pair) for pair in (rows, colours)]
        total = added(total, sums_of_pairs(*of_part))
    assert total.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(total[name], value, rtol=1e-3, atol=1e-3)
