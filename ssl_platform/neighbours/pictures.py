"""The pictures whose look-alikes are asked for."""

import os
from collections.abc import Sequence

from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.data.sets.image_folder import ImageFiles, existing


class Pictures(ImageFiles):
    """Some files by their paths, each of which has to be an image.

    Args:
        paths: of the files.

    Raises:
        ValueError: one is not there; the message begins with ``query=``.
    """

    labels = None

    def __init__(self, paths: Sequence[str]):
        files = [os.fsencode(existing("query", path, directory=False)) for path in paths]
        self.path = paths[0]
        self.files = FileTable([b""], [len(files)], Names.pack(files))

    def probe(self) -> None:
        """Read all of them.

        Raises:
            ValueError: one is no image that can be read.
        """
        for index in range(len(self)):
            try:
                self.read(index)
            except UnreadableImage as error:
                raise ValueError(f"query={error.name}: {error.reason}") from error
