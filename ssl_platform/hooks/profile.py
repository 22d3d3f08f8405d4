"""What ``profile=true`` adds to a training: the time of each part of a step, and a trace."""

import logging
import os
from statistics import mean
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from ssl_platform import distributed
from ssl_platform.data.crops import native_crop
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.step_timing import PARTS, StepTiming, report, split_step
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)

WARMUP_STEPS = 5  # while memory is allocated and data workers start
TRACED_STEPS = 3  # after one step in which torch's profiler warms up
FIRST_MEASURED = WARMUP_STEPS + 1 + TRACED_STEPS
MEASURED_STEPS = 30
TRACE = "profile/rank0.json.gz"  # in the run's directory

Mark = tuple[str, Any]  # the part that begins, and when


@HOOKS.register()
class StepProfile(Events):
    """Measure the parts of some steps, and record a trace of others.

    Forward hooks of torch on the model and the loss, and step hooks of the optimizer, mark when one
    part ends and the next begins, so that the engine needs no clock. Every moment of a step belongs
    to exactly one part.

    On a GPU a mark is a CUDA event. All events are read after the last step: the host never waits
    for the GPU, and the steps are those of an ordinary training. Traced steps are not measured,
    since recording takes time.

    Only the first rank writes a trace, which slows it; the figures are of all ranks. The first step
    of an epoch is left out: work between two epochs is no part of a step.

    Args:
        enabled: false leaves it out of the run.
    """

    comes_first = True  # the time of a hook before it would count as backward

    def __init__(self, *, enabled: bool):
        self.enabled = enabled
        self.handles: list[Any] = []  # of torch's hooks, while steps are measured

    def on_train_start(self, run: Run) -> None:
        self.start_step = run.step
        self.clock = _Clock(run.device)
        self.step: list[Mark] = []  # marks of the current step; none if it is not measured
        self.steps: list[tuple[list[Mark], float]] = []  # with the seconds that the loader waited
        self.waited = 0.0  # seconds that the loader had waited before the current step
        self.recorder: profile | None = None
        self.range: record_function | None = None  # of the current part, in the trace
        self.trace: str | None = None
        self.handles = [
            run.model.register_forward_pre_hook(lambda *_: self._begin("forward")),
            run.model.register_forward_hook(lambda *_: self._go_back()),
            run.loss.register_forward_pre_hook(lambda *_: self._begin("loss")),
            run.loss.register_forward_hook(lambda *_: self._begin("backward")),
            run.optimizer.register_step_pre_hook(lambda *_: self._begin("optimizer")),
            run.optimizer.register_step_post_hook(lambda *_: self._begin("rest")),
        ]

    def on_backward_end(self, run: Run) -> None:
        if self.handles:
            self._begin("rest")

    def on_step_end(self, run: Run) -> None:
        if not self.handles:
            return
        number = run.step - self.start_step
        self._end_step(run, is_measured=number > FIRST_MEASURED)
        if number == WARMUP_STEPS and distributed.rank() == 0:
            self._start_trace(run)
        elif self.recorder is not None:
            self.recorder.step()
            if number == FIRST_MEASURED:
                self._stop_trace()
        if len(self.steps) == MEASURED_STEPS:
            self._report(run)
        elif number >= WARMUP_STEPS and run.epoch_step < run.train_sampler.steps_per_epoch:
            self.waited = run.train_loader.wait_seconds
            self._enter("wait")

    def on_train_end(self, run: Run) -> None:
        if not self.handles:
            return
        if self.recorder is not None:
            self._stop_trace()
        if self.steps:
            self._report(run)
        else:
            logger.warning(
                "profile=true: nothing was measured in the %d steps of this process: the first %d "
                "and those that begin an epoch do not count",
                run.step - self.start_step,
                FIRST_MEASURED,
            )

    def _begin(self, part: str) -> None:
        """End the current part and begin another, if this step is measured."""
        if self.step:
            self._enter(part)

    def _go_back(self) -> None:
        """A pass of a micro-batch through the model after the loss is followed by its way back."""
        if any(part == "backward" for part, _ in self.step):
            self._enter("backward")

    def _enter(self, part: str) -> None:
        self._leave_range()
        self.step.append((part, self.clock.now()))
        if self.recorder is not None:
            self.range = record_function(part)
            self.range.__enter__()

    def _leave_range(self) -> None:
        if self.range is not None:
            self.range.__exit__(None, None, None)
            self.range = None

    def _end_step(self, run: Run, *, is_measured: bool) -> None:
        self._leave_range()
        if self.step and is_measured:
            self.step.append(("end", self.clock.now()))
            self.steps.append((self.step, run.train_loader.wait_seconds - self.waited))
        self.step = []

    def _start_trace(self, run: Run) -> None:
        path = run.output_dir / TRACE
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it prints each start and stop

        def write(recorder: profile) -> None:
            try:
                path.parent.mkdir(exist_ok=True)
                recorder.export_chrome_trace(str(path))
                self.trace = str(path)
            except OSError as error:
                logger.warning("%s cannot be written: %s", path, error)

        on_gpu = [ProfilerActivity.CUDA] if run.device.type == "cuda" else []
        self.recorder = profile(
            activities=[ProfilerActivity.CPU, *on_gpu],
            schedule=schedule(wait=0, warmup=1, active=TRACED_STEPS, repeat=1),
            on_trace_ready=write,
        )
        self.recorder.start()

    def _stop_trace(self) -> None:
        assert self.recorder is not None
        self._leave_range()
        self.recorder.stop()
        self.recorder = None

    def _report(self, run: Run) -> None:
        """Put the figures into the results of the run and log them; collective."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        timing = _mean_timing(run, [split_step(*step, self.clock.seconds) for step in self.steps])
        run.results["profile"] = timing.results(self.trace)
        logger.info("\n".join(report(run.results["profile"])))


class _Clock:
    """Time on the host or, on a GPU, which works later than it is asked to, in its stream."""

    def __init__(self, device: torch.device):
        self.is_of_gpu = device.type == "cuda"

    def now(self) -> Any:
        if not self.is_of_gpu:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        if not self.is_of_gpu:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000


def _mean_timing(run: Run, steps: list[dict[str, float]]) -> StepTiming:
    """The mean over steps and ranks; collective."""
    loader, num_processes = run.train_loader, distributed.world_size()
    means = [mean(step[part] for step in steps) for part in PARTS]
    wait = torch.tensor(means[list(PARTS).index("wait")], dtype=torch.float64, device=run.device)
    longest_wait = distributed.all_reduce_max(wait).item()
    numbers = torch.tensor([*means, *loader.reading_cost], dtype=torch.float64, device=run.device)
    *sums, images, decode, augment = distributed.all_reduce_sum(numbers).tolist()
    is_compiled = native_crop.AVAILABLE or not isinstance(loader.transform, MultiCrop)
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    busy = 1 if run.device.type == "cuda" else torch.get_num_threads()
    return StepTiming(
        num_steps=len(steps),
        num_processes=num_processes,
        batch_size=loader.batch_size,
        parts={part: total / num_processes for part, total in zip(PARTS, sums, strict=True)},
        longest_wait=longest_wait,
        decode=decode / images,
        augment=augment / images,
        num_workers=loader.num_workers,
        spare_cores=max(1, cores - busy),
        is_compiled=is_compiled,
    )
