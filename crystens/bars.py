"""Progress bars by name, on standard error, for the commands."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """Bars that appear with their first call, which ends those before whose total was not known; a context."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        """Return itself; nothing is shown before the first bar, so that an early error stands alone."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Leave the bars as they stand, those of unknown total ended unless something went wrong."""
        if kind is None:
            self._end()
        if self._progress.tasks:
            self._progress.stop()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show that so much of something is done; None is a total that is not known."""
        self._progress.start()
        if name not in self._tasks:
            self._end()
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)

    def _end(self) -> None:
        """End the bars whose total is not known."""
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=task.completed)
                self._tasks.pop(task.description, None)
