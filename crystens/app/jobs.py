"""Questions that wait, the one that is being answered, and the answers of the last ones.

One question is answered at a time, in a thread. A bounded number waits, and a bounded number of answers is kept, so
that no number of questions fills the memory.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from crystens.app.answer import Answer, Progress, Stopped
from crystens.app.asked import Asked
from crystens.errors import CrystensError

log = logging.getLogger(__name__)

MOST_WAITING = 4
MOST_KEPT = 20

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
DEFECT = "crystens failed at this question; the terminal of `crystens app` says why"


class Job:
    """A question, and what becomes of it.

    Attributes:
        name: by which the page finds it; it cannot be guessed.
        asked: the question.
        state: waiting, running, done, failed or stopped.
        stage: of the work, in words, with `done` of `total`.
        error: why it failed, in one line.
        answer: of a job that is done.
    """

    def __init__(self, asked: Asked) -> None:
        self.name = secrets.token_urlsafe(9)
        self.asked = asked
        self.state = WAITING
        self.stage, self.done, self.total = "", 0, asked.num_samples
        self.error = ""
        self.answer: Answer | None = None
        self.stop = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in (DONE, FAILED, STOPPED)

    def report(self, stage: str, done: int, total: int) -> None:
        """Keep how far the work is.

        Raises:
            Stopped: if somebody stopped it.
        """
        if self.stop.is_set():
            raise Stopped
        self.stage, self.done, self.total = stage, done, total


class Jobs:
    """Answers questions one after the other.

    Args:
        work: answers one question; calls its second argument as it goes on.
    """

    def __init__(self, work: Callable[[Asked, Progress], Answer]) -> None:
        self._work = work
        self._executor = ThreadPoolExecutor(1, "answer")
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._futures: dict[str, Future[None]] = {}

    def add(self, asked: Asked) -> Job:
        """Let a question wait for its answer.

        Raises:
            CrystensError: if too many wait.
        """
        with self._lock:
            waiting = sum(job.state == WAITING for job in self._jobs.values())
            if waiting >= MOST_WAITING:
                raise CrystensError(f"{waiting} questions wait for an answer already: ask again when one has ended")
            ended = [name for name, job in self._jobs.items() if job.ended]
            for name in ended[: max(0, len(ended) + 1 - MOST_KEPT)]:
                del self._jobs[name], self._futures[name]
            job = Job(asked)
            self._jobs[job.name] = job
            self._futures[job.name] = self._executor.submit(self._answer, job)
            return job

    def find(self, name: str) -> Job | None:
        """Return a job by its name; None if there is none, or it is no longer kept."""
        with self._lock:
            return self._jobs.get(name)

    def ahead(self, job: Job) -> int:
        """Return how many questions are answered before a job that waits."""
        with self._lock:
            names = list(self._jobs)
            return sum(not self._jobs[name].ended for name in names[: names.index(job.name)])

    def stop(self, job: Job) -> None:
        """Stop a job: at once if it waits, else at the next step of its work."""
        with self._lock:
            job.stop.set()
            if self._futures[job.name].cancel():
                job.state = STOPPED

    def close(self) -> None:
        """Stop all jobs; the one that runs ends at the next step of its work."""
        with self._lock:
            for job in self._jobs.values():
                job.stop.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _answer(self, job: Job) -> None:
        """Do the work of a job and keep what becomes of it."""
        job.state = RUNNING
        try:
            job.answer = self._work(job.asked, job.report)
            job.state = DONE
        except Stopped:
            job.state = STOPPED
        except CrystensError as error:
            job.error, job.state = str(error), FAILED
        except Exception:  # a defect: told on the terminal, and not on the page
            log.exception("the question %r failed", str(job.asked))
            job.error, job.state = DEFECT, FAILED
