"""A run says what it does wherever nothing else is heard for ten seconds."""

import itertools
import re

import pytest
import slow_images
from tiny_runs import train, without

from ssl_platform.console.working import QUIET_SECONDS, WATCH

LONGEST = 10 + slow_images.SECONDS  # it is looked at after each image

SLOW = "plugins=[slow_images]"


@pytest.fixture
def said(monkeypatch) -> list[tuple[float, str]]:
    """What is said, and when."""
    lines: list[tuple[float, str]] = []
    monkeypatch.setattr(WATCH, "clock", slow_images.clock)
    monkeypatch.setattr(WATCH, "say", lambda text: lines.append((slow_images.moment, text)))
    WATCH.heard()
    yield lines
    monkeypatch.undo()
    WATCH.heard()


def test_images_that_take_long_leave_no_silence(tiny, tmp_path, said, monkeypatch):
    steps: list[float] = []
    monkeypatch.setattr(
        "ssl_platform.loggers.console.Console.step", lambda *_: steps.append(slow_images.moment)
    )
    sets = [
        f"data.{key}={{name: SlowImages, number: {n}}}" for key, n in (("train", 64), ("val", 32))
    ]
    train([*without(tiny, "data.train", "data.val"), *sets], tmp_path, "num_epochs=2", SLOW)
    before = [moment for moment, _ in said if moment < steps[0]]
    moments = [*before, steps[0]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert max(gaps) <= LONGEST and steps[0] > 200 > QUIET_SECONDS
    texts = [re.sub(r"[\d,]+ (s|of|images)|[,\d]*\d", "N", text) for _, text in said]
    for wanted in (
        "looking at the images: reading a sample",
        "hooks.knn before the first step: baseline random init: features",
        "hooks.knn before the first step: baseline raw pixels: features",
        "waiting for the first images of the epoch",
        "hooks.knn after the epoch: features",
    ):
        assert any(text.startswith(wanted) for text in texts), (wanted, texts)
