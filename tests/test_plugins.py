"""Parts from outside; tests/test_docs.py runs those of the guide."""

from forked import tool

TRUNK_PY = """
from torch import nn

from ssl_platform.registry import TRUNKS


@TRUNKS.register()
class Convs(nn.Sequential):
    def __init__(self, *, out_dim: int):
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(nn.Conv2d(3, out_dim, 3, stride=2), nn.BatchNorm2d(out_dim), *pooled)
        self.out_dim = out_dim
"""


def test_a_trunk_from_outside_is_imported_where_the_command_says_so(tmp_path):
    (tmp_path / "my_trunk.py").write_text(TRUNK_PY)
    (tmp_path / "configs" / "trunk").mkdir(parents=True)
    (tmp_path / "configs" / "trunk" / "convs.yaml").write_text("name: Convs\nout_dim: 8\n")

    def run(*arguments: str, code: int = 0) -> str:
        small = ["data.num_workers=0", "launch.threads=1"]
        done = tool(*arguments, *small, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stderr

    run(
        "config=pretrain/swav/quickstart",
        "name=mine",
        "plugins=[my_trunk]",
        "--config-dir=configs",
        "trunk=convs",
        "data.train.num_samples=64",
        "data.val.num_samples=32",
        "num_epochs=1",
        "loss.queue_length=0",
        "~hooks.knn",
    )
    evaluation = ["config=benchmark/linear/folder", "checkpoint=runs/mine", "data=shapes"]
    images = ["data.train.num_samples=64", "data.val.num_samples=32", "data.batch_size=32"]
    once = ["num_epochs=1", "baselines=false", "launch.processes=2", "name=linear"]
    assert run(*evaluation, *images, *once, code=2) == (
        "error: checkpoint=runs/mine: there is no trunk Convs; the run was trained with "
        "plugins=[my_trunk], code that is imported only where your own command says so: where you "
        "trust it, add plugins=[my_trunk]\n"
    )
    run(*evaluation, *images, *once, "plugins=[my_trunk]")
    run("config=runs/linear/config.yaml", "name=again")
