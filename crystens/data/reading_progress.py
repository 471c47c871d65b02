"""What a person sees while a source is read: a bar with rate and rejects on a terminal, lines in a log elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from crystens.data.sources import Source

log = logging.getLogger(__name__)

_TOLD_EVERY = 15.0  # seconds between two lines in a log


class _Rate(ProgressColumn):
    """Inputs a second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text."""
        return Text(f"{task.completed / max(task.elapsed or 0, 1e-3):,.0f}/s")


@contextmanager
def reading_progress(source: Source) -> Iterator[Callable[[int, int], None]]:
    """Show progress on a terminal, or a line in the log now and then; gives a function that is told of each chunk.

    Its arguments are how many inputs were read, and how many of them are set aside.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("{task.fields[rejects]} set aside"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    log.info("reading %s", source)
    read = rejected = 0
    begun = told = time.monotonic()

    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=source.expected(), rejects=0)

        def tell(count: int, rejects: int) -> None:
            nonlocal read, rejected, told
            read, rejected = read + count, rejected + rejects
            progress.update(task, completed=read, rejects=rejected)
            now = time.monotonic()
            if not console.is_terminal and now > told + _TOLD_EVERY:
                told = now
                log.info("%d inputs read, %d set aside, %.0f a second", read, rejected, read / (now - begun))

        yield tell
        progress.update(task, total=read)
