"""The figures of a training as ``metrics.jsonl``."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_platform.errors import ConfigError
from ssl_platform.files import reason, replacing, sync
from ssl_platform.loggers.base import Logger, RunInfo
from ssl_platform.registry import LOGGERS

logger = logging.getLogger(__name__)


@LOGGERS.register()
class JSONLines(Logger):
    """One JSON object per line. Lines after the step at which a run resumes are dropped.

    A line has ``step`` and ``epoch`` (finished ones) and the figures. What a full disk does not
    take is kept, and tried again with the next line.
    """

    path: Path
    pending = b""

    def start(self, run: RunInfo) -> None:
        """Raises ``ConfigError``: the file cannot be rewritten."""
        self.path = path = run.output_dir / "metrics.jsonl"
        try:
            kept = _lines_up_to(path, run.step) if run.step > 0 and path.exists() else b""
            with replacing(path) as partial:
                partial.write_bytes(kept)
        except OSError as error:
            raise ConfigError([f"{path}: cannot be rewritten ({reason(error)})"]) from error

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        was_pending = bool(self.pending)
        self.pending += json.dumps({"step": step, "epoch": epoch, **figures}).encode() + b"\n"
        error = self._write_pending()
        if error is not None and not was_pending:
            logger.warning("%s cannot be written for now (%s)", self.path, reason(error))

    def sync(self) -> None:
        self._write_pending()
        with suppress(OSError):  # figures() has warned of the error
            sync(self.path)

    def close(self, results: Mapping[str, Any] | None) -> None:
        if self._write_pending() is not None:
            count = self.pending.count(b"\n")
            logger.warning(
                "%s: its last %d lines could not be written and are lost", self.path, count
            )

    def _write_pending(self) -> OSError | None:
        """Write what is pending; returns the error, if some of it stays pending."""
        try:
            with self.path.open("ab", buffering=0) as file:
                while self.pending:
                    self.pending = self.pending[file.write(self.pending) :]
        except OSError as error:
            return error
        return None


def _lines_up_to(path: Path, step: int) -> bytes:
    """The whole lines that a run had written up to ``step``."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        with suppress(ValueError, KeyError, TypeError):  # the rest of a line, after a crash
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    return b"".join(kept)
