"""Progress of a long call: a bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Counts the images of one call and displays the progress once the call has taken `delay` seconds.

    On a terminal or in a notebook, the progress is a bar of rich. Elsewhere, it is a plain line on standard error about
    every ten seconds.
    """

    def __init__(self, title: str, total: int | None, *, show: bool = True, delay: float = 2.0) -> None:
        self.title: str = title
        self.total: int | None = total
        self.show: bool = show
        self.delay: float = delay
        self.done: int = 0
        self.note: str = ""
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._lines = False
        self._last_word = True  # A call that has printed lines with `line` needs no final line.

    def __enter__(self) -> Progress:
        return self

    def advance(self, images: int, note: str | None = None) -> None:
        """Add `images` to the count; `note` replaces the text behind the bar."""
        self.done += images
        self.note = self.note if note is None else note
        now = time.monotonic()
        if not self.show or now - self._start < self.delay:
            return
        if self._bar is None and not self._lines:
            self._open()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=self._tail(now))
        elif now - self._last >= 10:
            self._last = now
            self._print(now)

    def line(self, text: str) -> None:
        """Print a permanent line, above the bar if there is one."""
        if not self.show:
            return
        self._last_word = False
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._lines and kind is None and self._last_word:
            self._print(time.monotonic())

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        if not (console.is_terminal or console.is_jupyter):
            self._lines = True
            return
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(self.title, total=self.total, note="")
        self._bar.start()

    def _tail(self, now: float) -> str:
        rate = self.done / max(now - self._start, 1e-9)
        return f"{rate:,.0f} images/s {self.note}".rstrip()

    def _print(self, now: float) -> None:
        total = "" if self.total is None else f" of {self.total:,}"
        print(f"{self.title}: {self.done:,}{total}, {self._tail(now)}", file=sys.stderr, flush=True)
