"""The bar on a terminal, and what else is printed there."""

import logging
import os
import re
import sys
import warnings

from run_infos import info
from terminals import terminal

from ssl_platform.console.working import WATCH
from ssl_platform.loggers.console import Console

FIGURES = {
    "loss": 2.5,
    "uniform_loss": 3.0,
    "lr": 0.1,
    "images_per_second": 90.0,
    "data_wait": 0.04,
    "seconds": 1.0,
}
BAR = re.compile(r"epoch (\d)/3 +(\d+)%\|.*\| (\d+)/12\b")


def started(folder, **of_run) -> Console:
    console = Console()
    console.start(info(folder, **of_run))
    console.bar._tqdm.mininterval = 0  # each step is drawn, however quick it is
    return console


def bars(shown) -> list[tuple[int, ...]]:
    """Epoch, percent and step of all bars that were drawn, in their order."""
    found = (BAR.match(state[row]) for state in shown.states() for row in range(len(state)))
    return list(dict.fromkeys(tuple(map(int, match.groups())) for match in found if match))


def test_the_bar_moves_at_each_step_and_ends_at_all(monkeypatch, tmp_path):
    with terminal(monkeypatch) as shown:
        console = started(tmp_path)
        for step in range(1, 13):
            if step == 5:
                console.figures(step, 1, FIGURES)
            console.step(step)
        console.close({})
    drawn = bars(shown)
    assert [step for *_, step in drawn] == list(range(1, 13))
    assert drawn[3:5] == [(1, 33, 4), (2, 42, 5)] and drawn[-1] == (3, 100, 12)
    assert re.search(
        r"12/12, ETA 0:00:00, loss 2.5000 \(ln K 3.000\), lr 0.1, 90", shown.screen()[-1]
    )


def test_lines_stand_for_themselves_and_streams_are_restored(monkeypatch, tmp_path):
    with terminal(monkeypatch) as shown:
        handler = logging.StreamHandler(sys.stderr)
        monkeypatch.setattr(logging.root, "handlers", [handler])
        console = started(tmp_path)
        console.step(1)
        print("printed", "by a hook")
        logging.getLogger("x").warning("logged by a hook")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: sys.stderr.write(f"warned: {message}\n")
            warnings.warn("of a hook", stacklevel=1)
        console.step(2)
        console.figures(2, 1, {"knn/top1": 50.0, "seconds": 3.0})
        print("no line break", end="")
        console.close(None)
        assert sys.stdout is sys.stderr is shown.stream and logging.root.handlers == [handler]
        print("after it")
    *lines, bar, after = shown.screen()
    assert lines == [
        "printed by a hook",
        "logged by a hook",
        "warned: of a hook",
        "epoch 1: top1 50",
        "no line break",
    ]
    assert BAR.match(bar) and after == "after it"
    for state in shown.states():  # never beside the bar, not for a moment
        assert not any("%|" in line and " hook" in line for line in state)


def test_a_forked_process_writes_past_the_bar(monkeypatch, tmp_path):
    with terminal(monkeypatch) as shown:
        console = started(tmp_path)
        console.step(1)
        assert sys.stdout is not shown.stream
        if (child := os.fork()) == 0:
            os._exit(int(sys.stdout is not shown.stream or sys.stderr is not shown.stream))
        assert os.waitpid(child, 0)[1] == 0
        console.close(None)


def test_a_run_that_goes_on_begins_where_it_is(monkeypatch, tmp_path):
    with terminal(monkeypatch) as shown:
        console = started(tmp_path, step=30, position=6)
        console.step(31)
        console.close(None)
    (first, *_) = filter(any, shown.states())
    assert "50%|" in first[0] and bars(shown) == [(2, 58, 7)]


def test_a_narrow_terminal_has_one_line_of_what_fits(monkeypatch, tmp_path):
    for columns, end in ((100, "90 images/s"), (70, "loss 2.5000 (ln K 3.000)"), (40, "12")):
        with terminal(monkeypatch, columns) as shown:
            console = started(tmp_path)
            for step in range(1, 13):
                console.figures(step, step // 4, FIGURES)
                console.step(step)
            console.close({})
        (line,) = shown.screen()
        assert len(line) <= columns and line.endswith(end) and "100%|" in line


def test_what_takes_a_while_is_shown_in_the_place_of_the_epoch(monkeypatch, tmp_path):
    with terminal(monkeypatch) as shown:
        console = started(tmp_path)
        console.step(4)
        with WATCH.working("hooks.knn after the epoch"):
            WATCH.look()
        WATCH.look()
        console.step(5)
        console.close(None)
    texts = [state[0].partition("%|")[0] for state in shown.states() if "%|" in state[0]]
    assert "hooks.knn after the epoch (0 s)  33" in texts
    assert texts.index("epoch 2/3  42") > texts.index("hooks.knn after the epoch (0 s)  33")
    assert WATCH.show is None
