"""The results of a run, printed and written at its end."""

import json
from typing import Any

from ssl_platform import distributed
from ssl_platform.console import legible
from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.baselines import RANDOM_INIT, RAW_PIXELS
from ssl_platform.evaluation.verdict import TRAINED
from ssl_platform.hooks import step_timing
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.hooks.judged import judged
from ssl_platform.loggers.group import json_values
from ssl_platform.registry import HOOKS

ROWS = (TRAINED, RANDOM_INIT, RAW_PIXELS)


@HOOKS.register()
class Summary(Events):
    """At the end, print the results of the run and write them to ``summary.json``."""

    comes_last = True

    def on_train_start(self, run: Run) -> None:
        self.start_step = run.step

    def on_train_end(self, run: Run) -> None:
        judged(run)
        if distributed.rank() != 0:
            return
        path = run.output_dir / "summary.json"
        # a run that had ended before this process has fewer results now
        if run.step > self.start_step or not path.exists():
            write_or_warn(path, json.dumps(json_values(run.results), indent=2) + "\n")
        print(legible("\n".join(["", *self._lines(run)])), flush=True)

    def _lines(self, run: Run) -> list[str]:
        results = run.results
        lines = [f"{run.name}: {run.epoch} epochs, {run.step} steps"]
        if "seconds" in results:
            lines[0] += (
                f", {results['seconds']:.0f} s, {results['images_per_second']:.0f} images/s here"
            )
        knn = results.get("knn")
        if knn:
            whose = f", of the {knn['evaluated']}" if "evaluated" in knn else ""
            lines.append(f"kNN accuracy in percent ({knn['labels']} labels, k={knn['k']}{whose}):")
            rows = {name: scores for name, scores in knn.items() if isinstance(scores, dict)}
            for name in ROWS:
                if name in rows:
                    scores = "  ".join(f"{key} {value:5.1f}" for key, value in rows[name].items())
                    lines.append(f"  {name:<12} {scores}")
        if "views" in results:
            lines += _views(results["views"])
        if "evaluation" in results:
            lines += _evaluation(results["evaluation"])
        if "profile" in results:
            lines += step_timing.report(results["profile"])
        paths = sorted(p for p in run.output_dir.iterdir() if not p.name.startswith("."))
        files = [f"{path.name}{'/' * path.is_dir()}" for path in paths]
        lines.append(f"files in {run.output_dir}: {', '.join(files)}")
        if "verdict" in results:
            kind, text = results["verdict"]["kind"], results["verdict"]["text"]
            lines += [f"verdict: {kind}: {text}", f"next: {results['verdict']['next']}"]
        return lines


def _views(views: dict[str, Any]) -> list[str]:
    lines = [
        f"crops that find the other crop of their image, in percent ({views['images']} images):"
    ]
    for name in ROWS:
        if name in views:
            figures = "  ".join(f"{key} {value:5.1f}" for key, value in views[name].items())
            lines.append(f"  {name:<12} {figures}")
    return lines


def _evaluation(evaluation: dict[str, Any]) -> list[str]:
    """The scores of every head, in its best epoch and in the last one."""
    lines = [f"accuracy in percent ({evaluation['protocol']}):"]
    for head, best in evaluation["best"].items():
        for which, scores in (
            (f"best epoch ({best['epoch']:.0f})", best),
            ("last epoch", evaluation["last"][head]),
        ):
            shown = "  ".join(f"{k} {v:5.1f}" for k, v in scores.items() if k != "epoch")
            lines.append(f"  {head:<12} {which:<18} {shown}")
    return lines
