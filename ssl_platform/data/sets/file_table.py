"""Tables of paths without an object per file."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Names(NamedTuple):
    """Many names without an object per name."""

    text: np.ndarray  # uint8, all names end to end
    sizes: np.ndarray  # (N,) uint16, bytes of each name

    @classmethod
    def pack(cls, names: Sequence[bytes]) -> "Names":
        """From one object per name."""
        sizes = np.fromiter(map(len, names), np.uint16, len(names))
        return cls(np.frombuffer(b"".join(names), np.uint8), sizes)

    @classmethod
    def join(cls, parts: Iterable["Names"]) -> "Names":
        """All names of several, in order."""
        texts, sizes = zip(*parts, strict=True)
        return cls(np.concatenate(texts), np.concatenate(sizes))

    def without_first(self, count: int) -> "Names":
        """All but the first ``count``."""
        start = int(self.sizes[:count].sum(dtype=np.int64))
        return Names(self.text[start:], self.sizes[count:])


class FileTable:
    """Paths of many files without an object per file.

    Reference counts of Python objects are written on every access, and so would copy the memory
    that forked workers share. 1.28 million paths take about 30 MiB here, once for all workers.

    Args:
        folders: where the files lie: those of one folder are consecutive, in the order given.
        counts: number of files of each folder.
        names: of all files, relative to their folder.
    """

    def __init__(self, folders: Sequence[bytes], counts: Sequence[int] | np.ndarray, names: Names):
        self._folders = list(folders)
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        self._text = names.text
        ends = np.cumsum(names.sizes, dtype=np.int64)
        self._ends = ends.astype(np.uint32) if len(self._text) < 2**32 else ends

    def __len__(self) -> int:
        return len(self._ends)

    def digest(self) -> bytes:
        """Of all names and their order, without the folder that all lie in."""
        root = os.path.commonpath(self._folders) if self._folders else b""
        digest = hashlib.blake2b(self._text.data, digest_size=16)
        digest.update(self._ends.astype("<u8").tobytes())
        digest.update(self._starts.astype("<i8").tobytes())
        digest.update(b"\0".join(os.path.relpath(folder, root) for folder in self._folders))
        return digest.digest()

    def __getitem__(self, index: int) -> bytes:
        """The path of file ``index``."""
        folder = self._folders[int(np.searchsorted(self._starts, index, side="right")) - 1]
        start = int(self._ends[index - 1]) if index else 0
        return os.path.join(folder, self._text[start : int(self._ends[index])].tobytes())
