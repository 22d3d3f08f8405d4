"""Whole runs with profile=true: nothing of the training changes, and all parts are told."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from test_offline_runs import tiny_of
from tiny_runs import assert_equal, losses, run_tool, saved, train

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.errors import ConfigError
from ssl_platform.hooks.profile import TRACED_STEPS
from ssl_platform.hooks.step_timing import PARTS

METHODS = ["swav", "deepcluster_v2", "sela_v2"]


def overrides_of(method: str, tiny: list[str]) -> list[str]:
    return [*(tiny if method == "swav" else tiny_of(method, tiny)), "~hooks.knn"]


def assert_is_whole(figures: dict[str, Any], num_steps: int) -> None:
    assert list(figures["parts"]) == list(PARTS)
    assert figures["steps"] == num_steps
    parts = figures["parts"].values()
    assert sum(part["seconds"] for part in parts) == pytest.approx(figures["seconds_per_step"])
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert min(part["seconds"] for part in parts) >= 0


def ranges_of(trace: Path) -> list[str]:
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    return [event["name"] for event in events if event.get("cat") == "user_annotation"]


@pytest.mark.parametrize("method", METHODS)
def test_a_profiled_run_trains_to_the_bit_as_another(method, tiny, tmp_path):
    overrides = overrides_of(method, tiny)
    train(overrides, tmp_path / "plain")
    results = train(overrides, tmp_path / "profiled", "profile=true")
    assert losses(tmp_path / "profiled") == losses(tmp_path / "plain")
    for part in ("shared.pt", "rank_0.pt"):
        states = (saved(tmp_path / name, 3, part) for name in ("plain", "profiled"))
        plain, profiled = ({k: v for k, v in s.items() if k != "hooks"} for s in states)
        assert_equal(plain, profiled)
    assert_is_whole(results["profile"], num_steps=3)  # the last epoch's, without its first
    assert json.loads((tmp_path / "profiled" / "summary.json").read_text()) == results


def test_the_trace_has_each_part_of_each_step(tiny, tmp_path, capsys):
    results = train(overrides_of("swav", tiny), tmp_path, "profile=true", "data.num_workers=1")
    trace = tmp_path / "profile" / "rank0.json.gz"
    ranges = ranges_of(trace)
    assert len([name for name in ranges if name.startswith("ProfilerStep#")]) == TRACED_STEPS
    # the first step of an epoch has no marks, as it is none to be measured
    assert ranges.count("forward") == ranges.count("loss") == ranges.count("backward") == 2
    assert set(PARTS) <= set(ranges)
    assert results["profile"]["trace"] == str(trace)
    printed = capsys.readouterr().out
    assert f"trace: {trace}; open it at https://ui.perfetto.dev" in printed
    assert "in 1 data workers of each process: decode" in printed


def test_two_processes_are_measured_together(tiny, tmp_path):
    both = [*overrides_of("swav", tiny), "launch.processes=2"]
    run_tool([*both, f"output_dir={tmp_path / 'plain'}"])
    run_tool([*both, f"output_dir={tmp_path / 'profiled'}", "profile=true"])
    assert losses(tmp_path / "profiled") == losses(tmp_path / "plain")
    figures = json.loads((tmp_path / "profiled" / "summary.json").read_text())["profile"]
    assert_is_whole(figures, num_steps=3)
    assert figures["processes"] == 2
    assert [path.name for path in (tmp_path / "profiled" / "profile").iterdir()] == [
        "rank0.json.gz"
    ]


def test_a_job_that_trains_nothing_has_nothing_to_profile(pretrained):
    with pytest.raises(ConfigError) as error:
        compose(
            ["config=benchmark/knn/folder", f"checkpoint={pretrained}", "data=shapes", "profile=1"]
        )
    (line,) = error.value.problems
    assert line.startswith(
        "profile=1: there is no profile; only a training has this key; choose from "
    )


def test_a_config_that_has_no_profile_among_its_hooks_says_what_to_add(tiny):
    with pytest.raises(ConfigError) as error:
        compose([*tiny, "profile=true", "~hooks.profile"])
    assert error.value.problems == [
        "profile=true: hooks.profile does it, and is not in this config; add "
        "'+hooks.profile={name: StepProfile, enabled: true}'"
    ]


def test_the_profile_hears_first_and_the_log_last(tiny):
    options = options_of(
        compose([*tiny, "~hooks.profile", "+hooks.last={name: StepProfile, enabled: true}"])
    )
    names = [type(hook).__name__ for hook in Builder(options).run().hooks.values()]
    assert names[0] == "StepProfile" and names[-2:] == ["Log", "Summary"]


def test_a_run_may_be_profiled_when_it_goes_on_and_says_when_it_is_too_short(
    tiny, tmp_path, caplog
):
    overrides = overrides_of("swav", tiny)
    train(overrides, tmp_path)
    results = train(overrides, tmp_path, "profile=true")
    assert "profile" not in results
    assert (
        "profile=true: nothing was measured in the 0 steps of this process: the first 9 and those "
        "that begin an epoch do not count"
    ) in caplog.messages
