"""What a process says of its work, by a clock of the test."""

import os
from itertools import pairwise

import pytest

from ssl_platform.console.working import MORE_SECONDS, POLL_SECONDS, QUIET_SECONDS, Watch


class Talk:
    """A watch that looks twice a second of a clock that the test moves, and the lines it says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[tuple[float, str]] = []
        self.watch = Watch(lambda text: self.said.append((self.now, text)), lambda: self.now)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / POLL_SECONDS)):
            self.now += POLL_SECONDS
            self.watch.look()


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_nobody_waits_ten_seconds_for_a_word(talk):
    """A chain of works, each short, one long, some within others."""
    for seconds in (3, 4, 2, 40, 1, 7):
        with talk.watch.working(f"work of {seconds} s"):
            talk.wait(seconds / 2)
            with talk.watch.working("a part"):
                talk.wait(seconds / 2)
    moments = [0.0, *(moment for moment, _ in talk.said), talk.now]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert max(gaps) < 10 and len(talk.said) == 6
    assert talk.said[0][1] == "work of 2 s (1 s)"
    assert talk.said[-1][1] == "work of 7 s (3 s)"


def test_it_says_how_far_it_is(talk):
    with talk.watch.working("features", 2000) as work:
        work.advance(1200)
        talk.wait(QUIET_SECONDS)
    with talk.watch.working("looking through /images", unit="files") as work:
        work.advance(31_000)
        talk.wait(MORE_SECONDS)
    assert [text for _, text in talk.said] == [
        "features, 1,200 of 2,000 images (8 s)",
        "looking through /images, 31,000 files (9 s)",
    ]


def test_steps_and_lines_break_the_silence_and_idle_time_is_no_work(talk):
    talk.wait(60)
    with talk.watch.working("saving a checkpoint"):
        talk.watch.heard()
        talk.wait(QUIET_SECONDS - 1)
        talk.watch.heard()
        talk.wait(QUIET_SECONDS - 1)
    talk.wait(60)
    assert not talk.said


def test_what_a_bar_has_shown_is_not_said_again(talk):
    shown: list[str] = []
    talk.watch.show = shown.append
    with talk.watch.working("measuring"):
        talk.wait(20)
        talk.watch.show = None
        talk.wait(QUIET_SECONDS - 1)
    assert shown[-1] == "measuring (20 s)" and not talk.said


def test_an_error_ends_its_work(talk):
    with pytest.raises(KeyError), talk.watch.working("a"), talk.watch.working("b"):
        raise KeyError
    talk.wait(60)
    assert not talk.said


def test_a_forked_process_does_not_go_on_with_the_work_of_its_parent():
    from ssl_platform.console.working import WATCH, no_silence, working

    with no_silence(), working("reading"):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, str(len(WATCH._works)).encode())
            os._exit(0)
        os.wait()
        assert os.read(reader, 9) == b"0" and len(WATCH._works) == 1
