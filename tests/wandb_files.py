"""What is in the files that Weights & Biases keeps of runs that are offline."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7  # bytes
WHOLE, LAST = 1, 4  # kinds of parts of a record


def records(path: Path) -> Iterator[Any]:
    """The records of a file, in the format of the logs of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), FILE_HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, without what it adds itself."""
    logged = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {tuple(i.nested_key) or (i.key,): i.value_json for i in record.history.item}
            plain = {".".join(key): json.loads(value) for key, value in items.items()}
            logged.append({key: v for key, v in plain.items() if not key.startswith("_")})
    return logged
