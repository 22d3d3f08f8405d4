"""The page that goes with exported weights."""

import json
from pathlib import Path

from ssl_platform.trained_run import TrainedRun
from ssl_platform.zoo.architecture import trunk_option
from ssl_platform.zoo.weights import Weights

CARD = """\
# {title}

| | |
|---|---|
{table}
{figures}
Tensors have the names of {library}:

```python
from safetensors.torch import load_file

model.load_state_dict(load_file("{file_name}"), strict=False)  # a classifier may be missing
```
"""


def model_card(weights: Weights, file_name: str, sha256: str) -> str:
    """Markdown: what the weights are, where they come from, what they scored, how to load them.

    Args:
        weights: what was exported.
        file_name, sha256: of the exported file.
    """
    rows = [
        ("file", f"`{file_name}`, sha256 `{sha256}`"),
        ("trunk", f"`{trunk_option(weights.trunk_node)}`" if weights.trunk_node else "not told"),
        ("from", f"`{weights.source}` ({weights.format}, sha256 `{weights.sha256}`)"),
    ]
    figures = ""
    if Path(weights.source).is_dir():
        run = TrainedRun.open(weights.source)
        options, normalize = run.options, run.options.data.normalize
        rows += [
            ("method", f"`{options.loss['name']}`, config `{options.name}`"),
            ("data", f"`{json.dumps(options.data.train)}`"),
            ("epochs", f"{run.state['epoch']} of {options.num_epochs}"),
            ("batch size", str(options.data.batch_size)),
            ("normalisation", f"mean {normalize.mean}, std {normalize.std}"),
        ]
        figures = _figures(run.checkpoint.parents[1] / "summary.json")
    timm = any(name.startswith("model.") for name in weights.trunk)
    return CARD.format(
        title=Path(file_name).stem,
        table="\n".join(f"| {label} | {text} |" for label, text in rows),
        figures=figures,
        library="timm" if timm else "torchvision",
        file_name=file_name,
    )


def _figures(summary: Path) -> str:
    if not summary.is_file():
        return ""
    figures = json.dumps(json.loads(summary.read_text()), indent=2)
    return f"\nWhat the run measured:\n\n```json\n{figures}\n```\n"
