"""Write the features of images to files, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.console import legible
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.engine.build import eval_loader, open_dataset, resolve_device
from ssl_platform.errors import first_few
from ssl_platform.evaluation.feature_cache import images_provenance, log_once
from ssl_platform.evaluation.feature_files import INDEX, FeatureFiles, write_features
from ssl_platform.models.layers import POOLED, LayerOutputs, submodule
from ssl_platform.registry import TASKS
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem

NUM_NAMED = 5  # unreadable images


@dataclass(frozen=True)
class FeaturesOptions(TrunkOptions):
    """Top-level keys of the task; see configs/task/features.yaml."""

    layers: list[str]
    split: Literal["train", "val"]
    pool: bool
    dtype: Literal["float16", "float32"]


@TASKS.register()
class ExtractFeatures(TrunkTask):
    """Write ``<layer>.npy``, the features of the centre crop of every image, and ``index.parquet``.

    See `evaluation.feature_files`. The row of an image that cannot be read is NaN, and marked in
    the index.
    """

    options = FeaturesOptions

    def probe(self, options: FeaturesOptions) -> None:
        if not options.layers or len(set(options.layers)) < len(options.layers):
            raise ValueError(f"layers={options.layers}: one name or more, each once")
        with as_problem():
            trunk = TrainedTrunk.open(options).module
        for layer in options.layers:
            if layer != POOLED:
                try:
                    submodule(trunk, layer)
                except ValueError as error:
                    raise ValueError(f"layers: {error}") from error
        _open(options)

    def __call__(self, options: FeaturesOptions) -> FeatureFiles:
        """Compute and write; returns what was written."""
        device = resolve_device(options.device)
        trunk = TrainedTrunk.open(options)
        trunk.module.to(device)
        dataset = _open(options)

        layer_outputs = LayerOutputs(trunk.module, options.layers)

        def embed(images: Tensor) -> Mapping[str, Tensor]:
            outputs = layer_outputs(images)
            if options.pool:
                outputs = {layer: _pooled(output) for layer, output in outputs.items()}
            return outputs

        positions = np.arange(len(dataset))
        log_once(f"features of {len(dataset)} images")
        files = write_features(
            Path(options.output_dir) / "features",
            embed,
            eval_loader(dataset, positions, options, device=device),
            positions,
            dtype=options.dtype,
            provenance={
                **trunk.fingerprint,
                "source": trunk.weights.shown,
                "pool": str(options.pool),
                **images_provenance(dataset, positions, options.data),
            },
        )
        if distributed.rank() == 0:
            print(legible("\n".join(["", *_summary(files, dataset)])), flush=True)
        return files


def _open(options: FeaturesOptions) -> ImageDataset:
    node = {"train": options.data.train, "val": options.data.val}[options.split]
    if node is None:
        raise ValueError(f"split={options.split}: data.{options.split} is null; use split=train")
    return open_dataset(node, options.data)


def _pooled(output: Tensor) -> Tensor:
    """(B, C, H, W) maps averaged over the image; other features as they are."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output


def _summary(files: FeatureFiles, dataset: ImageDataset) -> list[str]:
    lines = [
        f"{files.folder / layer}.npy  {(files.num_images, *shape)} {files.dtype}"
        for layer, shape in files.shapes.items()
    ]
    lines.append(f"{files.folder / INDEX}  image, uri, position, readable, label of each row")
    if files.unreadable:
        named = first_few(map(dataset.describe, files.unreadable), NUM_NAMED)
        lines.append(f"{len(files.unreadable)} images cannot be read, their rows are NaN: {named}")
    return lines
