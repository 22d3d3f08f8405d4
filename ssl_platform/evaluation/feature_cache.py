"""Features of labelled images that are computed once and found again by every evaluation."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ssl_platform import distributed
from ssl_platform.config.options import DataOptions, ImageJobOptions
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.engine.build import eval_loader
from ssl_platform.evaluation.baselines import Embed
from ssl_platform.evaluation.feature_files import FeatureFiles, write_features

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheOptions:
    folder: str
    dtype: Literal["float16", "float32"]


@dataclass(frozen=True)
class FeatureCache:
    """A folder of features, each in ``<subject>/<images>-<digest of how they are read>``, and
    believed if its fingerprints agree.

    Args:
        options: where it is, and the type of the features.
        job: how the images are read.
        device: of the job.
    """

    options: CacheOptions
    job: ImageJobOptions
    device: torch.device

    def features(
        self,
        subject: str,
        identity: Mapping[str, str],
        embed: Embed,
        images: str,
        dataset: ImageDataset,
        positions: np.ndarray,
    ) -> FeatureFiles:
        """The features of some images, computed if they are not there; collective.

        Args:
            subject: whose features; becomes a folder's name.
            identity: fingerprints of whose they are.
            embed: (B, 3, H, W) images to (B, D) features; a module is in eval mode.
            images: of what; becomes a folder's name.
            dataset, positions: the images.

        Returns:
            Files with the one layer ``features``.
        """
        provenance = {
            **identity,
            **images_provenance(dataset, positions, self.job.data),
            "dtype": self.options.dtype,
        }
        # a place of its own, so that evaluations with other transforms leave it alone
        how = short_digest([provenance["transform"], self.options.dtype])
        name = f"{_as_file_name(images)}-{how}"
        folder = Path(self.options.folder) / _as_file_name(subject) / name
        found = _found(folder, provenance)
        is_missing = torch.tensor(int(found is None), device=self.device)
        # every rank has to see the files, or all compute
        if not distributed.all_reduce_max(is_missing).item() and found is not None:
            say(f"{folder}: the features of {len(positions)} images are there")
            return found
        say(f"{folder}: computing the features of {len(positions)} images")
        return write_features(
            folder,
            lambda batch: {"features": embed(batch)},
            eval_loader(dataset, positions, self.job, device=self.device),
            positions,
            dtype=self.options.dtype,
            provenance=provenance,
        )


def _found(folder: Path, provenance: Mapping[str, str]) -> FeatureFiles | None:
    """The files in a folder, if they are what is wanted; says what of them is not."""
    files = FeatureFiles.read(folder)
    if files is None or files.provenance == provenance:
        return files
    keys = sorted(files.provenance.keys() | provenance.keys())
    changed = [key for key in keys if files.provenance.get(key) != provenance.get(key)]
    say(f"{folder}: these features are stale, the {' and '.join(changed)} changed")
    return None


def images_provenance(
    dataset: ImageDataset, positions: np.ndarray, data: DataOptions
) -> dict[str, str]:
    """Fingerprints of some images, and of how they become a batch."""
    chosen = hashlib.blake2b(positions.astype("<i8").tobytes(), digest_size=8).hexdigest()
    files = short_digest(sorted(dataset.sample().items()))
    how = {
        "transform": data.eval_transform,
        "normalize": asdict(data.normalize),
        "pixels": asdict(data.pixels),
    }
    return {
        "images": f"{dataset.fingerprint()} {chosen} {files}",
        "transform": json.dumps(how, sort_keys=True),
    }


def short_digest(value: Any) -> str:
    """Eight letters that tell one plain value from another."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def say(line: str) -> None:
    """Log it once, whatever the number of ranks."""
    if distributed.rank() == 0:
        logger.info("%s", line)


def _as_file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")
