"""Embeddings as files that TensorBoard's projector shows, and https://projector.tensorflow.org."""

import math
import re
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_platform.console import escaped
from ssl_platform.files import replacing

CONFIG = "projector_config.pbtxt"  # the name that TensorBoard looks for
VECTORS, LABELS, SPRITE = "tensors.tsv", "metadata.tsv", "sprite.png"
LARGEST_SPRITE = 8192  # pixels in a row: more than that no browser draws
DIGITS = 6


def write_projector(
    folder: Path, name: str, vectors: np.ndarray, images: np.ndarray, labels: Sequence[str]
) -> None:
    """Write embeddings to a folder of a sample's name, and enter that in ``folder``'s config.

    Args:
        folder: that of the event files.
        name, vectors, images, labels: see `Logger.embeddings`; what was there of the same name is
            replaced.

    Raises:
        OSError: it cannot be written.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    place = re.sub(r"[^\w-]", "_", f"projector_{name}")
    (folder / place).mkdir(parents=True, exist_ok=True)
    rows = StringIO()
    np.savetxt(rows, vectors, fmt=f"%.{DIGITS}g", delimiter="\t")
    sprite, side = sprite_of(images)
    files = {VECTORS: rows.getvalue().encode(), SPRITE: sprite}
    if labels:
        files[LABELS] = "".join(f"{escaped(label) or '-'}\n" for label in labels).encode()
    for file, content in files.items():
        _write(folder / place / file, content)
    config = ProjectorConfig()
    if (folder / CONFIG).is_file():
        text_format.Parse((folder / CONFIG).read_text(), config)
    others = [entry for entry in config.embeddings if entry.tensor_name != name]
    del config.embeddings[:]
    config.embeddings.extend(others)
    entry = config.embeddings.add(tensor_name=name, tensor_path=f"{place}/{VECTORS}")
    entry.metadata_path = f"{place}/{LABELS}" if labels else ""
    entry.sprite.image_path = f"{place}/{SPRITE}"
    entry.sprite.single_image_dim.extend([side, side])
    _write(folder / CONFIG, text_format.MessageToString(config).encode())


def sprite_of(images: np.ndarray) -> tuple[bytes, int]:
    """Pictures side by side in a square, row by row, as a PNG; and the side of each.

    Args:
        images: (N, side, side, 3) uint8.
    """
    columns = math.isqrt(max(len(images), 1) - 1) + 1
    side = min(images.shape[1], LARGEST_SPRITE // columns)
    sprite = Image.new("RGB", (columns * side, columns * side), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        picture = Image.fromarray(image)
        sprite.paste(picture.resize((side, side)), (column * side, row * side))
    png = BytesIO()
    sprite.save(png, "PNG")
    return png.getvalue(), side


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)
