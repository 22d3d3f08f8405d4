import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shipped_once import parse_once
from tiny_runs import without

import ssl_platform
from ssl_platform.config import compose

torch.set_num_threads(1)
parse_once()
# a shell starts background jobs with Ctrl-C ignored, and so would be what the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # so does nohup

# the quick start, small enough for a test: 3 epochs of 4 steps
TINY = [
    "config=pretrain/swav/quickstart",
    "num_epochs=3",
    "data.train.num_samples=128",
    "data.val.num_samples=64",
    "data.batch_size=32",
    "data.num_workers=0",
    "trunk.width=8",
    "heads.prototypes.hidden_dim=16",
    "heads.prototypes.out_dim=8",
    "heads.prototypes.num_prototypes=[12]",
    "schedule.warmup_epochs=1",
    "loss.queue_length=0",
    "loss.freeze_prototypes_epochs=0",
    "hooks.knn.num_labels=40",
    "hooks.knn.every_epochs=1",
    "hooks.log.every_steps=1",
    "loggers.tensorboard.enabled=false",
    "~hooks.views",  # tests/hooks/test_views.py has it
    "launch.threads=1",
    "++hooks.report=null",
]


@pytest.fixture
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture
def stoppable(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiny run that a hook of the tests can stop, without an evaluation."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # of ranks
    return [*without(tiny, "hooks.knn"), "~hooks.knn", "plugins=[kill_hook]"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of twelve noise JPEGs in three class folders."""
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photographs" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path / "photographs"


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run, not to be written to."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    ssl_platform.run(compose([*TINY, "num_epochs=2", "~hooks.knn", f"output_dir={folder}"]))
    return folder
