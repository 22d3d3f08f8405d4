"""Figures of a step, and what is advised about them: no clock is involved."""

from dataclasses import replace

import pytest

from ssl_platform.hooks.step_timing import (
    PARTS,
    StepTiming,
    advice,
    report,
    split_step,
)

# 64 images in 100 ms of computing: 640 images/s, of 4 ms each: 2.56 data workers
BALANCED = StepTiming(
    num_steps=30,
    num_processes=1,
    batch_size=64,
    parts={
        "wait": 0.0, "forward": 0.03, "loss": 0.01, "backward": 0.05, "optimizer": 0.005,
        "rest": 0.005,
    },
    longest_wait=0.0,
    decode=0.001,
    augment=0.003,
    num_workers=4,
    spare_cores=7,
    is_compiled=True,
)  # fmt: skip


def waiting(seconds: float, **reading) -> StepTiming:
    parts = {**BALANCED.parts, "wait": seconds}
    return replace(BALANCED, parts=parts, longest_wait=seconds, **reading)


@pytest.mark.parametrize("waited", [0, 3, 5, 8])
def test_the_split_step_a_step_sum_up_to_it(waited):
    step = [
        ("wait", 10), ("forward", 15), ("loss", 31), ("backward", 33), ("rest", 60),
        ("optimizer", 61), ("rest", 68), ("end", 70),
    ]  # fmt: skip
    parts = split_step(step, waited, lambda start, end: end - start)
    assert list(parts) == list(PARTS)
    assert sum(parts.values()) == 70 - 10
    assert parts["wait"] == min(waited, 5)  # no longer than the steps were apart
    assert parts["rest"] == 1 + 2 + 5 - parts["wait"]
    assert (parts["forward"], parts["loss"], parts["backward"], parts["optimizer"]) == (
        16, 2, 27, 7,
    )  # fmt: skip


def test_a_step_whose_optimizer_is_left_out_sums_up_too():
    parts = split_step([("wait", 0), ("forward", 2), ("end", 9)], 1, lambda a, b: b - a)
    assert sum(parts.values()) == 9 and parts["optimizer"] == 0


def test_no_advice_where_nothing_dominates():
    assert advice(BALANCED) == []
    assert advice(waiting(0.024)) == []  # 19 %


HEAD = (
    "waiting for data takes 33% of a step; 640 images/s at 4 ms of CPU time need 3 data workers in "
    "each process: "
)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_too_few_data_workers_are_counted(num_workers):
    (line,) = advice(waiting(0.05, num_workers=num_workers))
    assert line == f"{HEAD}set data.num_workers=3, now {num_workers}"


def test_the_process_that_waits_most_counts():
    (line,) = advice(replace(waiting(0.02, num_workers=1), longest_wait=0.04))
    assert "takes 33% of a step; 800 images/s" in line
    assert line.endswith("set data.num_workers=4, now 1")


def test_workers_are_not_advised_beyond_the_cores():
    (more,) = advice(waiting(0.05, num_workers=1, spare_cores=2))
    assert more.startswith(f"{HEAD}set data.num_workers=2, now 1; there are cores for 2: use fewer")
    for num_workers in (2, 3, 9):
        (line,) = advice(waiting(0.05, num_workers=num_workers, spare_cores=2))
        assert line.startswith(f"{HEAD}there are cores for 2: use fewer or smaller crops")


def test_enough_workers_that_are_waited_for_wait_for_the_disk():
    (line,) = advice(waiting(0.05, num_workers=3))
    assert line.startswith(f"{HEAD}there are 3, which is enough: they wait for the disk")


def test_the_fallback_is_named_only_where_it_costs():
    assert "docs/speed.md" in advice(waiting(0.05, num_workers=1, is_compiled=False))[-1]
    assert advice(waiting(0.0, is_compiled=False)) == []


@pytest.mark.parametrize("part", ["loss", "rest"])
def test_other_parts_that_dominate_are_named(part):
    (line,) = advice(replace(BALANCED, parts={**BALANCED.parts, part: 0.1}))
    assert line.startswith(f"{PARTS[part]} takes 5")


def test_the_report_has_all_parts_and_where_the_trace_is():
    results = waiting(0.05, num_workers=0).results("runs/x/profile/rank0.json.gz")
    text = "\n".join(report(results))
    assert all(name in text for name in PARTS.values())
    assert "33%" in text and "as data.num_workers=0: decode 1 ms + augment 3 ms" in text
    assert "advice: waiting for data" in text
    assert text.endswith("rank0.json.gz; open it at https://ui.perfetto.dev")
    assert "trace" not in "\n".join(report(BALANCED.results(None)))
    assert results["seconds_per_step"] == pytest.approx(0.15)
