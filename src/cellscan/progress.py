"""Progress of a long call: a bar on a terminal or in a notebook, plain lines elsewhere; and one switch for all."""

from __future__ import annotations

import os
import sys
import time
from html import escape
from types import TracebackType
from typing import Any, Protocol

from cellscan.errors import ArgumentError

VARIABLE = "CELLSCAN_PROGRESS"

_switch: bool | None = None
"""What `set_progress` was called with; None before."""


def set_progress(show: bool) -> None:
    """Show or hide the progress of all calls in this process.

    Progress is shown if both this switch and the argument ``progress`` of a call are True. Before the first call of
    this function, the environment variable ``CELLSCAN_PROGRESS`` is the switch: ``0`` hides progress, and ``1``, the
    default, shows it. Child processes inherit the variable, but not the effect of this function.

    Progress goes to standard error, or to the output of a notebook cell; never to standard output.

    Parameters
    ----------
    show : bool
        Whether progress may be shown.

    Raises
    ------
    ArgumentError
        If `show` is not a bool. A call that would show progress raises it if ``CELLSCAN_PROGRESS`` is neither 0 nor 1.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.set_progress(False)
    >>> history = cellscan.Classifier(image_size=16).fit(cellscan.synthetic_cells(40, seed=0), epochs=1)
    >>> cellscan.set_progress(True)
    """
    global _switch
    if not isinstance(show, bool):
        raise ArgumentError(f"show is {show!r:.80}; expected True or False")
    _switch = show


def progress_is_on() -> bool:
    """Return whether the switch allows progress."""
    if _switch is not None:
        return _switch
    text = os.environ.get(VARIABLE) or "1"
    if text not in ("0", "1"):
        raise ArgumentError(f"the environment variable {VARIABLE} is {text!r:.80}; expected 0 or 1")
    return text == "1"


class _Bar(Protocol):
    def update(self, done: int, note: str) -> None: ...
    def line(self, text: str) -> None: ...
    def pause(self) -> None: ...
    def close(self) -> None: ...


class Progress:
    """Counts the images of one call and displays the progress once the call has taken `delay` seconds.

    On a terminal, the progress is a bar of rich; in a notebook, a bar of HTML. Elsewhere, it is a plain line on
    standard error about every ten seconds. Nothing is displayed if `show` is False, or if `set_progress` is off.
    """

    def __init__(self, title: str, total: int | None, *, show: bool = True, delay: float = 2.0) -> None:
        self.title: str = title
        self.total: int | None = total
        if getattr(show, "ndim", 0):  # The truth value of an array is an error of NumPy's or of pandas'.
            raise ArgumentError(f"progress is a {type(show).__name__}; expected True or False")
        self.show: bool = bool(show) and progress_is_on()
        self.delay: float = delay
        self.done: int = 0
        self.note: str = ""
        self._start = self._last = time.monotonic()
        self._bar: _Bar | None = None
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
            self._bar.update(self.done, self._tail(now))
        elif now - self._last >= 10:
            self._last = now
            self._print(now)

    def line(self, text: str) -> None:
        """Print a permanent line, above the bar if there is one."""
        if not self.show:
            return
        self._last_word = False
        if self._bar is None and _in_notebook():
            self._open()
        if self._bar is not None:
            self._bar.line(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def pause(self) -> None:
        """Remove the bar from a terminal while code of the caller runs; the next `advance` shows it again."""
        if self._bar is not None:
            self._bar.pause()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._lines and kind is None and self._last_word:
            self._print(time.monotonic())

    def _open(self) -> None:
        if _in_notebook():
            self._bar = _NotebookBar(self.title, self.total)
        elif sys.stderr is not None and sys.stderr.isatty():
            self._bar = _TerminalBar(self.title, self.total)
        else:
            self._lines = True

    def _tail(self, now: float) -> str:
        rate = self.done / max(now - self._start, 1e-9)
        return f"{rate:,.0f} images/s {self.note}".rstrip()

    def _print(self, now: float) -> None:
        print(f"{self.title}: {_count(self.done, self.total)}, {self._tail(now)}", file=sys.stderr, flush=True)


def _count(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class _TerminalBar:
    """A bar of rich, which disappears when the call ends."""

    def __init__(self, title: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._rich.add_task(title, total=total, note="")
        self._rich.start()

    def update(self, done: int, note: str) -> None:
        self._rich.start()  # Does nothing unless the bar was paused.
        self._rich.update(self._task, completed=done, note=note)

    def line(self, text: str) -> None:
        self._rich.console.print(text, highlight=False, markup=False)

    def pause(self) -> None:
        self._rich.live.stop()  # While it runs, another bar is an error, and prints go to standard error.

    def close(self) -> None:
        self._rich.stop()


class _NotebookBar:
    """One output of a notebook cell: the permanent lines, and below them a bar, which disappears when the call ends.

    It is HTML, because rich needs ipywidgets in a notebook.
    """

    def __init__(self, title: str, total: int | None) -> None:
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        self._title, self._total = title, total
        self._html: Any = HTML
        self._done, self._note = 0, ""
        self._text: list[str] = []
        self._shown_at = time.monotonic()
        self._output: Any = display(HTML(self._render()), display_id=True)

    def update(self, done: int, note: str) -> None:
        self._done, self._note = done, note
        now = time.monotonic()
        if now - self._shown_at >= 0.2:  # Each change is a message to the browser.
            self._shown_at = now
            self._output.update(self._html(self._render()))

    def line(self, text: str) -> None:
        self._text.append(text)
        self._output.update(self._html(self._render()))

    def pause(self) -> None:
        """Do nothing: other outputs of the cell appear below this one."""

    def close(self) -> None:
        self._output.update(self._html(self._lines()))

    def _lines(self) -> str:
        return f"<pre>{escape(chr(10).join(self._text))}</pre>" if self._text else ""

    def _render(self) -> str:
        value = "" if self._total is None else f' value="{self._done}" max="{max(self._total, 1)}"'
        text = f"{self._title} {_count(self._done, self._total)} {self._note}"
        return f"{self._lines()}<div><progress{value}></progress> {escape(text.rstrip())}</div>"
