"""Signals that ask a run to stop: it saves after the step under way and ends."""

import os
import signal
import threading
from contextlib import suppress
from typing import Any

from ssl_platform import distributed
from ssl_platform.errors import StopRequested

EXIT_CODES = {  # 75, EX_TEMPFAIL, asks a scheduler to start the run again
    signal.SIGTERM: 75,
    signal.SIGUSR1: 75,
    signal.SIGINT: 130,
    signal.SIGHUP: 129,  # its terminal was closed
}


class StopSignals:
    """A context that notes the first stop signal, and says so; a second has its usual effect.

    Only the main thread receives signals: in another one the context does nothing. A signal that
    is ignored, such as Ctrl-C in a background job, stays ignored.

    Attributes:
        number: of the signal that came; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN:
                    self._handlers[number] = handler or signal.SIG_DFL
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: Any) -> None:
        self.number = number
        self._restore()
        if distributed.rank() == 0:
            again = "; again to end now" if number == signal.SIGINT else ""
            answer = f"\n{signal.Signals(number).name}: stopping after this step{again}\n"
            with suppress(OSError):  # not print: the signal may have come in the middle of one
                os.write(2, answer.encode())

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())


def stop_error(number: int, step: int) -> StopRequested:
    """The error with which a run ends that has saved after a stop signal."""
    name = signal.Signals(number).name
    return StopRequested(
        f"stopped by {name} at step {step}: the same command goes on from the latest checkpoint",
        EXIT_CODES[signal.Signals(number)],
    )
