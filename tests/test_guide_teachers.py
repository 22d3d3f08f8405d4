"""The methods with a teacher that docs/extending.md shows, as a reader would type them."""

from pathlib import Path

import pytest
from forked import tool
from test_docs import BLOCKS
from tiny_runs import assert_equal, last_saved, losses

from ssl_platform.evaluation.results import Results

TESTS = str(Path(__file__).parent)
SMALL = [
    "data.train.num_samples=64", "data.val.num_samples=64", "data.batch_size=32", "num_epochs=2",
    "trunk.width=8", "optimizer.lr=0.05", "schedule.warmup_epochs=0", "~hooks.knn", "~hooks.crops",
    "hooks.log.every_steps=1", "loggers.tensorboard.enabled=false", "launch.threads=1",
    "save.every_steps=1", "save.keep=9",
]  # fmt: skip
SIZES = {
    "byol": ["heads.projection.hidden_dim=16", "heads.projection.out_dim=8"],
    "dino": ["heads.prototypes.hidden_dim=16", "heads.prototypes.num_prototypes=[12]"],
}


@pytest.mark.parametrize("method", SIZES)
def test_a_method_of_the_guide(method, tmp_path, monkeypatch):
    """On one process and on two, resumed, and evaluated by its teacher."""
    files = {b.what: b.text for b in BLOCKS if b.mark == "file" and f"{method}" in b.what}
    assert len(files) == 2 and files[f"{method}.py"].count("\n") <= 60
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        # in double precision, like the trunk, so that rounding does not matter
        (tmp_path / name).write_text(text.replace(".float()", ".double()"))
    monkeypatch.setenv("PYTHONPATH", TESTS)
    in_double = [f"plugins=[double_trunks,{method}]", "trunk.name=DoubleResNet"]
    config = ["--config-dir", "configs", f"config=pretrain/{method}/quickstart"]

    def run(*arguments: str) -> None:
        done = tool(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    training = [*config, *in_double, *SMALL, *SIZES[method]]
    run(*training, "name=one")
    run(*training, "name=two", "launch.processes=2")
    one, two, cut = (tmp_path / "runs" / name for name in ("one", "two", "cut"))
    assert losses(two) == pytest.approx(losses(one), rel=1e-9)
    begun = f"resume.mode={two / 'checkpoints' / 'step_00000003'}"
    run(*training, "name=cut", "launch.processes=2", begun)
    assert losses(cut) == losses(two)[3:]
    for part in ("shared.pt", "rank_0.pt", "rank_1.pt"):
        assert_equal(last_saved(two, part), last_saved(cut, part))

    images = ["data=shapes", "data.train.num_samples=64", "data.val.num_samples=32"]
    knn = ["config=benchmark/knn/folder", "task.k=[5]", "baselines=false", *images]
    run(*knn, "name=knn", "checkpoint=runs/two", "plugins=[double_trunks]", "launch.threads=1")
    assert Results.read(tmp_path / "runs" / "knn").weights["whose"] == "teacher"

    done = tool(*training, "teacher.crops=null", "name=none", cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "runs" / "none").exists()
    assert done.stderr == (
        "error: loss: it reads the outputs of a teacher, and none are computed: add teacher=ema "
        "'teacher.crops=[0,1]', or other crops for the teacher to see\n"
    )
