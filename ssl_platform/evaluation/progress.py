"""Lines that say how far a long piece of work is."""

import logging
import time
from datetime import timedelta

logger = logging.getLogger(__name__)

FIRST, LONGEST = 10.0, 300.0  # seconds between lines, doubled after each


class Progress:
    """Says after ten seconds how long the rest will take, and again at growing intervals.

    Work that is done sooner says nothing.

    Args:
        what: is done, for the line.
        total: number of images.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total = what, total
        self.done, self.start = 0, time.monotonic()
        self.wait, self.next = FIRST, self.start + FIRST

    def add(self, images: int) -> None:
        """So many more images are done."""
        self.done = min(self.done + images, self.total)
        now = time.monotonic()
        if now < self.next or self.done == self.total:
            return
        rest = (now - self.start) * (self.total - self.done) / self.done
        left = timedelta(seconds=round(rest))
        logger.info("%s: %d of %d images, %s left", self.what, self.done, self.total, left)
        self.wait = min(2 * self.wait, LONGEST)
        self.next = now + self.wait
