"""The index of an image folder: time against torchvision's, and memory at ImageNet's size.

    python benchmarks/index.py [--rounds 7]

100,000 empty files in 100 folders, in the cache of the file system.
"""

from ratios import Row, rounds_of, run_alone, speedups  # isort: skip (threads)

import multiprocessing
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from torchvision import datasets

from ssl_platform.data.sets.file_index import folder_index
from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.data.sets.folder_scan import scan
from ssl_platform.data.sets.image_folder import ImageFolder

LONG_AGO = 10**18  # ns: a folder that has just changed gets no index
NUM_CLASSES, NUM_IMAGES = 1000, 1280  # of ImageNet, about


def make_tree(root: Path, num_folders: int, num_files: int) -> None:
    """Empty files in folders that changed last long ago."""
    for number in range(num_folders):
        folder = root / f"n{number:08d}"
        folder.mkdir()
        for file in range(num_files):
            (folder / f"n{number:08d}_{file}.JPEG").touch()
        os.utime(folder, ns=(LONG_AGO, LONG_AGO))
    os.utime(root, ns=(LONG_AGO, LONG_AGO))


def imagenet() -> FileTable:
    """The file names of ImageNet's training images, about."""
    folders = [b"/data/train/n%08d" % i for i in range(NUM_CLASSES)]
    names = (
        Names.pack([b"n%08d_%05d.JPEG" % (i, j) for j in range(NUM_IMAGES)])
        for i in range(NUM_CLASSES)
    )
    return FileTable(folders, [NUM_IMAGES] * NUM_CLASSES, Names.join(names))


def private_mebibytes() -> float:
    """Memory of this process that it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def read_all(table: FileTable, labels: np.ndarray, growth: Any) -> None:
    """Look up every path and label, and say how much private memory that took."""
    before = private_mebibytes()
    for index in range(len(table)):
        assert table[index] and labels[index] >= 0
    growth.put(private_mebibytes() - before)


def rows(rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        root = Path(place) / "images"
        root.mkdir()
        make_tree(root, 100, 1000)
        start = process_time()
        folder_index(os.fsencode(root))
        first = process_time() - start
        seconds = rounds_of(
            {
                "torchvision": lambda: datasets.ImageFolder(str(root)),
                "scan": lambda: scan(os.fsencode(root)),
                "again": lambda: ImageFolder(path=str(root)),
            },
            rounds,
        )
    yield Row("scan of a folder, torchvision", speedups(seconds["torchvision"], seconds["scan"]), 2)
    yield Row("second start, first", [first / again for again in seconds["again"]], 20)

    tracemalloc.start()
    table, labels = imagenet(), np.repeat(np.arange(NUM_CLASSES), NUM_IMAGES)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Row("index and labels of 1.28 M files", [size / 2**20], 40, "MiB")
    context = multiprocessing.get_context("fork")
    growth = context.SimpleQueue()
    worker = context.Process(target=read_all, args=(table, labels, growth))
    worker.start()
    yield Row("growth of a worker that reads all of it", [growth.get()], 5, "MiB")
    worker.join()


if __name__ == "__main__":
    run_alone(__doc__, rows, 7)
