import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_platform.ops.resharding import reshard


@settings(max_examples=60, deadline=None)
@given(
    before=st.sampled_from([1, 2, 3, 4, 6]),
    after=st.sampled_from([1, 2, 3, 4, 6]),
    num_steps=st.integers(0, 4),
    dim=st.integers(0, 1),
)
def test_each_step_keeps_its_total_batch_in_order(before, after, num_steps, dim):
    steps = torch.arange(num_steps * 12).view(num_steps, 12)

    def cut(world_size: int) -> list[torch.Tensor]:
        """As ranks hold them: (rows of all steps, 5), or that behind a slab dimension."""
        rows = [
            part.flatten() for part in steps.view(num_steps, world_size, 12 // world_size).unbind(1)
        ]
        wide = [part[:, None].expand(-1, 5) for part in rows]
        return [part.expand(2, *part.shape) if dim == 1 else part for part in wide]

    found = reshard(cut(before), dim=dim, num_rows=12 // after, world_size=after)
    assert len(found) == after
    for mine, expected in zip(found, cut(after), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize(("num_parts", "num_rows"), [(1, 5), (4, 1), (4, 6)])
def test_rows_of_other_batches_are_refused(num_parts, num_rows):
    parts = [torch.zeros(16)] * num_parts
    with pytest.raises(ValueError, match="the batch size is another, too"):
        reshard(parts, dim=0, num_rows=num_rows, world_size=1)
