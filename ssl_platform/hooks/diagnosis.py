"""Signs of a collapse over the steps of a run: one is told once, then in a line an epoch, and taken
back when it ends."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ssl_platform import distributed
from ssl_platform.engine.run import Run
from ssl_platform.hooks.remedies import remedy_of
from ssl_platform.hooks.signs import Sign

logger = logging.getLogger(__name__)
RESULT = "doctor"  # the name of the signs among the results of a run


class Diagnosis:
    """The signs that a hook looks for, and which of them hold.

    Args:
        signs: names of all that it looks for; no other hook has one of them.
        patience: looks in a row at which a sign is found before it holds, and at which it is not
            found before it no longer holds.
    """

    def __init__(self, signs: Collection[str], *, patience: int):
        self.signs, self.patience = signs, patience
        self.records: dict[str, dict[str, Any]] = {}  # by sign: of those that begin, hold or end

    def state_dict(self) -> dict[str, Any]:
        """Plain values, the same on all ranks."""
        return self.records

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from ``state_dict``."""
        self.records = {name: dict(record) for name, record in state.items()}

    def look(self, run: Run, found: Iterable[Sign], *, since_step: int) -> None:
        """Compare the signs of the latest steps with those before; collective.

        Args:
            found: the same on all ranks; the first explains the others.
            since_step: the first of those steps.
        """
        texts = {sign.name: sign.text for sign in found}
        for name in [name for name in self.records if name not in texts]:
            self._missed(run, name)
        for name, text in texts.items():
            new = {"since_step": since_step, "there": 0, "holds": False, "told_in": -1}
            record = self.records.setdefault(name, new)
            record |= {"text": text, "there": record["there"] + 1, "gone": 0}
            if record["there"] == self.patience and not record["holds"]:
                # the first rank alone knows the config
                remedy = distributed.broadcast_text(remedy_of(name, run.loggers.config))
                record |= {"holds": True, "remedy": remedy}
        held = [record for record in self.records.values() if record["holds"]]
        if held and not any(record["told_in"] >= 0 for record in held):
            first = next((self.records[n] for n in texts if self.records[n]["holds"]), held[0])
            first["told_in"] = run.epoch
            _say(run, logging.WARNING, f"{first['text']}; try first {first['remedy']}")
        self.report(run)

    def _missed(self, run: Run, name: str) -> None:
        record = self.records[name]
        record |= {"there": 0, "gone": record["gone"] + 1}
        if record["holds"] and record["gone"] < self.patience:
            return
        del self.records[name]
        if record["told_in"] >= 0:
            _say(run, logging.INFO, f"this is over: {record['text']}")

    def report(self, run: Run) -> None:
        """Bring the results of the run up to date."""
        others = [entry for entry in run.results.get(RESULT, []) if entry["sign"] not in self.signs]
        run.results[RESULT] = others + [
            {"sign": name} | {key: record[key] for key in ("text", "remedy", "since_step")}
            for name, record in self.records.items()
            if record["holds"]
        ]

    def remind(self, run: Run) -> None:
        """At the end of an epoch: say in a line that what was told in an earlier epoch holds."""
        for record in self.records.values():
            if 0 <= record["told_in"] < run.epoch - 1:
                since = record["since_step"]
                _say(run, logging.WARNING, f"still so, since step {since}: {record['text']}")


def _say(run: Run, level: int, told: str) -> None:
    if distributed.rank() == 0:
        logger.log(level, "step %d: %s", run.step, told)
