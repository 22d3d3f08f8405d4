"""The results of a run, printed and written at its end."""

import json
from typing import Any

from ssl_platform import distributed
from ssl_platform.console import legible
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks import step_timing
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.loggers.group import json_values
from ssl_platform.ops.proportions import two_standard_errors
from ssl_platform.registry import HOOKS


@HOOKS.register()
class Summary(Events):
    """At the end, print the results of the run and write them to ``summary.json``."""

    comes_last = True

    def on_train_start(self, run: Run) -> None:
        self.start_step = run.step

    def on_train_end(self, run: Run) -> None:
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
            for name in ("trained", "random init", "raw pixels"):
                if name in rows:
                    scores = "  ".join(f"{key} {value:5.1f}" for key, value in rows[name].items())
                    lines.append(f"  {name:<12} {scores}")
            lines += _verdict(rows, knn["queries"])
        if "evaluation" in results:
            lines += _evaluation(results["evaluation"])
        if "profile" in results:
            lines += step_timing.report(results["profile"])
        paths = sorted(p for p in run.output_dir.iterdir() if not p.name.startswith("."))
        files = [f"{path.name}{'/' * path.is_dir()}" for path in paths]
        return [*lines, f"files in {run.output_dir}: {', '.join(files)}"]


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


def _verdict(rows: dict[str, dict[str, float]], num_images: int) -> list[str]:
    """Whether the features are better than the baselines, beyond the error of so many images."""
    if not {"trained", "random init", "raw pixels"} <= rows.keys():
        return []
    metric = next(iter(rows["trained"]))
    trained = rows["trained"][metric]
    gains = {name: trained - rows[name][metric] for name in ("random init", "raw pixels")}
    errors = {
        name: 100 * two_standard_errors(trained / 100, rows[name][metric] / 100, num_images)
        for name in gains
    }
    worse = [name for name, gain in gains.items() if gain < -errors[name]]
    unsure = {name: gain for name, gain in gains.items() if abs(gain) <= errors[name]}
    if worse:
        return [
            f"verdict: the features are worse than {' and '.join(worse)} ({_over(gains)}); look at "
            "the loss beside ln K and at the health figures in metrics.jsonl, and see "
            "docs/monitoring.md"
        ]
    if unsure:
        of_errors = " and ".join(f"{errors[name]:.1f}" for name in unsure)
        return [
            f"verdict: no proof: {_over(unsure)} {'are' if len(unsure) > 1 else 'is'} within the "
            f"error of {num_images} images (2 standard errors are {of_errors}); see "
            "docs/monitoring.md"
        ]
    return [f"verdict: the training taught the trunk something ({_over(gains)})"]


def _over(gains: dict[str, float]) -> str:
    listed = ", ".join(f"{gain:+.1f} over {name}" for name, gain in gains.items())
    return listed.replace(" over", " points over", 1)
