import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ssl_platform.ops.pca import principal_components


@pytest.mark.parametrize(("num_rows", "dim", "asked"), [(50, 8, 3), (50, 8, 100), (5, 8, 8)])
def test_components_are_those_of_scikit_learn(num_rows, dim, asked):
    generator = torch.Generator().manual_seed(0)
    rows = 3 + torch.randn(num_rows, dim, generator=generator) * torch.arange(1.0, dim + 1)
    mean, directions = principal_components(rows, asked, block=7)
    found = min(num_rows, dim, asked)
    assert directions.shape == (dim, found)
    reference = PCA(found).fit(rows.double().numpy())
    np.testing.assert_allclose(mean, reference.mean_, rtol=1e-5)
    # a direction has no sign; the last of as many as rows has no variance, so none either
    real = min(found, num_rows - 1)
    alignment = directions[:, :real].T.double().numpy() @ reference.components_[:real].T
    np.testing.assert_allclose(np.abs(alignment), np.eye(real), atol=1e-5)
