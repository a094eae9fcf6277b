"""How far the work on many images is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what was done to images ("decoded"), to how many so far, and how many there are."""


class Tally:
    """Counts the images of one kind of work.

    Args:
        progress: hears of each count; None if nobody does.
        what: was done to an image.
        total: images in all.
    """

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self.progress, self.what, self.total, self.done = progress, what, total, 0

    def add(self, images: int) -> None:
        """So many more are done."""
        self.done += images
        if self.progress:
            self.progress(self.what, self.done, self.total)
