"""The model card that is written beside exported weights."""

import json
from pathlib import Path

from ssl_platform.console import escaped, without_secrets
from ssl_platform.schema import flat
from ssl_platform.zoo.architecture import trunk_option
from ssl_platform.zoo.trained_run import SavedRun
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
    """A page in Markdown: what the weights are, their origin, their scores, how to load them.

    Args:
        weights: what was exported.
        file_name, sha256: of the exported file.
    """
    rows = [
        ("file", f"`{file_name}`, sha256 `{sha256}`"),
        ("trunk", f"`{trunk_option(weights.trunk_node)}`" if weights.trunk_node else "not told"),
        ("from", f"`{weights.shown}` ({weights.format}, sha256 `{weights.sha256}`)"),
    ]
    figures = ""
    if Path(weights.source).is_dir():
        run = SavedRun.open(weights.source)
        known = flat(run.config)
        data = without_secrets(json.dumps(run.config.get("data", {}).get("train")))
        normalize = [known.get(f"data.normalize.{key}") for key in ("mean", "std")]
        rows += [
            ("method", f"`{known.get('loss.name')}`, config `{known.get('name')}`"),
            ("data", f"`{data}`"),
            ("epochs", f"{run.state.get('epoch')} of {known.get('num_epochs')}"),
            ("batch size", str(known.get("data.batch_size"))),
            ("images", f"{known.get('data.channels', 3)} channels"),
            ("normalisation", f"mean {normalize[0]}, std {normalize[1]}"),
        ]
        figures = _figures(run.checkpoint.parents[1] / "summary.json")
    timm = any(name.startswith("model.") for name in weights.trunk)
    return CARD.format(
        title=Path(file_name).stem,
        table="\n".join(f"| {label} | {escaped(text)} |" for label, text in rows),
        figures=figures,
        library="timm" if timm else "torchvision",
        file_name=file_name,
    )


def _figures(summary: Path) -> str:
    if not summary.is_file():
        return ""
    figures = json.dumps(json.loads(summary.read_text()), indent=2)
    return f"\nWhat the run measured:\n\n```json\n{figures}\n```\n"
