import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ssl_platform.ops import feature_table
from ssl_platform.ops.feature_table import Centred, blocks, mean_of, principal_components


@pytest.mark.parametrize(("num_rows", "dim", "asked"), [(50, 8, 3), (50, 8, 100), (5, 8, 8)])
def test_components_are_those_of_scikit_learn(num_rows, dim, asked, monkeypatch):
    monkeypatch.setattr(feature_table, "BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    rows = 3 + torch.randn(num_rows, dim, generator=generator) * torch.arange(1.0, dim + 1)
    mean, directions = principal_components(rows, asked)
    found = min(num_rows, dim, asked)
    assert directions.shape == (dim, found)
    reference = PCA(found).fit(rows.double().numpy())
    np.testing.assert_allclose(mean, reference.mean_, rtol=1e-5)
    # a direction has no sign; the last of as many as rows has no variance, so none either
    real = min(found, num_rows - 1)
    alignment = directions[:, :real].T.double().numpy() @ reference.components_[:real].T
    np.testing.assert_allclose(np.abs(alignment), np.eye(real), atol=1e-5)


def test_a_centred_table_is_the_table_less_its_mean_however_it_is_read(monkeypatch):
    monkeypatch.setattr(feature_table, "BLOCK", 7)
    rows = 5 + torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).half()
    centred = Centred(rows, mean_of(rows))
    expected = rows.float() - rows.double().mean(0).float()
    assert torch.cat(list(blocks(centred))).equal(expected)
    assert centred[torch.tensor([4, 2])].equal(expected[[4, 2]])
    assert (len(centred), centred.shape) == (20, (20, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_have_no_mean_and_no_components(bad):
    rows = torch.ones(20, 3)
    rows[7, 1] = bad
    for measure in (mean_of, lambda rows: principal_components(rows, 2)):
        with pytest.raises(ValueError, match=r"^features: some of the rows are NaN or infinite$"):
            measure(rows)
