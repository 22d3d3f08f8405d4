"""A cache of features on disk, so that several evaluations compute them once."""

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
from ssl_platform.data.decoding.pixels import COLOURS
from ssl_platform.engine.build import eval_loader
from ssl_platform.evaluation.baselines import Embed, LabelledFeatures
from ssl_platform.evaluation.feature_files import FeatureFiles, write_features
from ssl_platform.evaluation.labelled_images import LabelledImages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheOptions:
    """The key ``cache`` of an evaluation."""

    folder: str
    dtype: Literal["float16", "float32"]


@dataclass(frozen=True)
class FeatureCache:
    """Features in ``<subject>/<images>-<digest of how they are read>`` below a folder.

    They are used if the fingerprints of weights, images and transform agree with those in the
    folder; else they are computed again.

    Args:
        options: the folder, and the type of the features.
        job: how the images are read.
        device: of the job.
    """

    options: CacheOptions
    job: ImageJobOptions
    device: torch.device

    def features(
        self, subject: str, identity: Mapping[str, str], embed: Embed, images: LabelledImages
    ) -> LabelledFeatures:
        """The features of the images that can be read, computed if necessary; collective.

        Args:
            subject: name of what computes the features, for the folder.
            identity: its fingerprints.
            embed: (B, C, H, W) images to (B, D) features; a module is in eval mode.
            images: what they are of.
        """
        files = self.files(subject, identity, embed, images)
        features = torch.from_numpy(files.array("features"))
        labels = torch.from_numpy(images.targets)
        if not files.unreadable:
            return LabelledFeatures(features, labels)
        log_once(f"{files.folder}: {len(files.unreadable)} images cannot be read and are left out")
        readable = np.setdiff1d(np.arange(len(features)), files.unreadable)
        return LabelledFeatures(features[readable], labels[readable])

    def files(
        self, subject: str, identity: Mapping[str, str], embed: Embed, images: LabelledImages
    ) -> FeatureFiles:
        """The features of all images in the layer ``features``, as `features` finds them."""
        dataset, positions = images.dataset, images.positions
        provenance = {
            **identity,
            **images_provenance(dataset, positions, self.job.data),
            "dtype": self.options.dtype,
        }
        # in the name of the folder, so that evaluations with other transforms do not replace it
        how = short_digest([provenance["transform"], self.options.dtype])
        name = f"{images.role}-{short_digest(images.node)}-{how}"
        folder = Path(self.options.folder) / _as_file_name(subject) / name
        files = _read(folder, provenance)
        is_missing = torch.tensor(int(files is None), device=self.device)
        # if one rank does not see the files, all ranks compute
        if not distributed.all_reduce_max(is_missing).item() and files is not None:
            log_once(f"{folder}: the features of {len(positions)} images are there")
            return files
        log_once(f"{folder}: computing the features of {len(positions)} images")
        return write_features(
            folder,
            lambda batch: {"features": embed(batch)},
            eval_loader(dataset, positions, self.job, device=self.device),
            positions,
            dtype=self.options.dtype,
            provenance=provenance,
        )


def _read(folder: Path, provenance: Mapping[str, str]) -> FeatureFiles | None:
    """The files in a folder if their fingerprints agree; else None, and the log says why."""
    files = FeatureFiles.read(folder)
    if files is None or files.provenance == provenance:
        return files
    keys = sorted(files.provenance.keys() | provenance.keys())
    changed = [key for key in keys if files.provenance.get(key) != provenance.get(key)]
    log_once(f"{folder}: these features are stale, the {' and '.join(changed)} changed")
    return None


def images_provenance(
    dataset: ImageDataset, positions: np.ndarray, data: DataOptions
) -> dict[str, str]:
    """Fingerprints of some images, and of the way from a file to a batch."""
    chosen = hashlib.blake2b(positions.astype("<i8").tobytes(), digest_size=8).hexdigest()
    files = short_digest(sorted(dataset.sample().items()))
    pixels = asdict(data.pixels)
    if data.channels == COLOURS:  # as it was before there were others: older features stay
        del pixels["channels"]
    how = {
        "transform": data.eval_transform,
        "normalize": asdict(data.normalize),
        "pixels": pixels,
    }
    return {
        "images": f"{dataset.fingerprint()} {chosen} {files}",
        "transform": json.dumps(how, sort_keys=True),
    }


def short_digest(value: Any) -> str:
    """A digest of a plain value, 8 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def log_once(line: str) -> None:
    """Log a line on the first rank only."""
    if distributed.rank() == 0:
        logger.info("%s", line)


def _as_file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")
