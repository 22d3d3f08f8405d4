"""What ``profile=true`` adds to a training: the anatomy of its step, and a trace of a few steps."""

import logging
import os
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from ssl_platform import distributed
from ssl_platform.data.crops import native_crop
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.step_timing import PARTS, Anatomy, Reading, lines, parts_of

logger = logging.getLogger(__name__)

WARMUP_STEPS = 5  # of a process: memory is allocated, data workers start
TRACED_STEPS = 3  # after one more that the profiler itself needs to warm up
FIRST_MEASURED = WARMUP_STEPS + 1 + TRACED_STEPS
MEASURED_STEPS = 30
TRACE = "profile/rank0.json.gz"  # in the run's directory

Mark = tuple[str, Any]  # the part that begins, and when


class StepProfile(Events):
    """Measure the parts of some steps, and record a trace of others.

    It is the first of the hooks and follows a step through torch's own hooks on the model, the loss
    and the optimizer: so the engine has no clock in it, and a training without this class runs not
    one instruction more. Each of them marks a moment at which one part ends and the next begins;
    every moment of a step belongs to exactly one part.

    On a GPU a mark is an event in its stream, and all of them are read when the last step is done:
    the host never waits for the device, so that the steps are those of an ordinary training. Nor
    are they those that are traced, whose times hold the recording itself.

    The trace is of the first rank alone: it slows the process that writes it, and one looks at one;
    the figures are those of all ranks. Steps that begin an epoch are left out of them: what is done
    between two epochs is no part of a step.
    """

    def on_train_start(self, run: Run) -> None:
        self.start_step = run.step
        self.clock = _Clock(run.device)
        self.step: list[Mark] = []  # the one under way, if it is looked at
        self.steps: list[tuple[list[Mark], float]] = []  # with the seconds that the loader waited
        self.waited = 0.0  # by the loader, until the step under way began
        self.recorder: profile | None = None
        self.range: record_function | None = None  # of the part under way, in the trace
        self.trace: str | None = None
        self.handles = [
            run.model.register_forward_pre_hook(lambda *_: self._begin("forward")),
            run.loss.register_forward_pre_hook(lambda *_: self._begin("loss")),
            run.loss.register_forward_hook(lambda *_: self._begin("backward")),
            run.optimizer.register_step_pre_hook(lambda *_: self._begin("optimizer")),
            run.optimizer.register_step_post_hook(lambda *_: self._begin("rest")),
        ]

    def on_backward_end(self, run: Run) -> None:
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
        if self.recorder is not None:
            self._stop_trace()
        if self.steps and self.handles:
            self._report(run)
        elif self.handles:
            logger.warning(
                "profile=true: nothing was measured in the %d steps of this process: the first %d "
                "and those that begin an epoch do not count",
                run.step - self.start_step,
                FIRST_MEASURED,
            )

    def _begin(self, part: str) -> None:
        """The part under way ends here; of no account outside a step that is looked at."""
        if self.step:
            self._enter(part)

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
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports each start and stop

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
        """Put the figures among the run's results, and say them; collective."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        anatomy = _anatomy(run, [parts_of(*step, self.clock.seconds) for step in self.steps])
        run.results["profile"] = anatomy.results(self.trace)
        logger.info("\n".join(lines(run.results["profile"])))


class _Clock:
    """Moments on the host or, where work is done later than it is asked for, on the device."""

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


def _anatomy(run: Run, steps: list[dict[str, float]]) -> Anatomy:
    """The mean over steps and ranks; collective."""
    loader, num_processes = run.train_loader, distributed.world_size()
    mine = torch.tensor([[step[part] for part in PARTS] for step in steps], dtype=torch.float64)
    parts = mine.mean(dim=0)
    wait = parts[list(PARTS).index("wait")]
    totals = distributed.all_reduce_sum(
        torch.cat([parts, torch.tensor(loader.reading_cost, dtype=torch.float64)]).to(run.device)
    )
    longest_wait = distributed.all_reduce_max(wait.clone().to(run.device))
    *means, images, decode, augment = totals.tolist()
    is_compiled = native_crop.AVAILABLE or not isinstance(loader.transform, MultiCrop)
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    busy = 1 if run.device.type == "cuda" else torch.get_num_threads()
    return Anatomy(
        num_steps=len(steps),
        num_processes=num_processes,
        batch_size=loader.batch_size,
        parts={part: mean / num_processes for part, mean in zip(PARTS, means, strict=True)},
        longest_wait=longest_wait.item(),
        reading=Reading(
            decode=decode / images,
            augment=augment / images,
            num_workers=loader.num_workers,
            spare_cores=max(1, cores - busy),
            is_compiled=is_compiled,
        ),
    )
