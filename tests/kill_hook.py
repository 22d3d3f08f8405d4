"""A plug-in of the tests: a hook that kills or stops a run, or its data workers, by a signal."""

import multiprocessing
import os
import signal
import threading
import time
from typing import Literal

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.registry import HOOKS


@HOOKS.register()
class Kill(Events):
    """Send a signal at a moment of the first step, save or epoch from ``step`` on.

    Args:
        step: finished steps.
        rank: which rank does it.
        moment: ``backward`` is between the gradients and their use; ``within`` is after the sixth
            pass of the step through the model, with micro-batches.
        victim: ``all`` is the launcher and its ranks.
        delay: seconds from the moment on.
        signal: its name.
    """

    def __init__(
        self,
        *,
        step: int,
        rank: int,
        moment: Literal["within", "backward", "step", "save", "epoch"],
        victim: Literal["all", "rank", "worker"],
        delay: float = 0.0,
        signal: str = "SIGKILL",
    ):
        self.step, self.rank, self.moment = step, rank, moment
        self.victim, self.delay, self.signal = victim, delay, signal
        self.is_over = False

    def on_train_start(self, run: Run) -> None:
        self.num_passes = 0  # of the step under way
        run.model.register_forward_hook(lambda *_: self._pass(run))

    def _pass(self, run: Run) -> None:
        self.num_passes += 1
        if self.num_passes == 6:
            self._strike("within", run)

    def on_epoch_start(self, run: Run) -> None:
        self._strike("epoch", run)

    def on_backward_end(self, run: Run) -> None:
        self._strike("backward", run)

    def on_step_end(self, run: Run) -> None:
        self.num_passes = 0
        self._strike("step", run)

    def on_save_start(self, run: Run) -> None:
        self._strike("save", run)

    def _strike(self, moment: str, run: Run) -> None:
        is_now = moment == self.moment and run.step >= self.step
        if is_now and distributed.rank() == self.rank and not self.is_over:
            self.is_over = True
            if self.delay:
                threading.Thread(target=self._kill, daemon=True).start()
            else:
                self._kill()

    def _kill(self) -> None:
        time.sleep(self.delay)
        number = signal.Signals[self.signal]
        if self.victim == "worker":
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, number)
            return
        if self.victim == "all" and distributed.is_distributed():
            os.kill(os.getppid(), number)
        os.kill(os.getpid(), number)
