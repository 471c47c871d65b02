"""How processes of our own are started: by a server that forks, where there is one, otherwise anew."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext


def process_context(*preload: str) -> BaseContext:
    """Return the context that starts processes. Not by fork: a fork copies the locks of threads (torch's) closed.

    Python tells each new process its own default start method. In a worker of joblib, such as a job of a sweep, this is
    "loky", which only a process that has imported joblib knows; it is exchanged there for one that all know.

    Args:
        preload: modules that the server of forks imports once.
    """
    known = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in known else "spawn"
    if multiprocessing.get_start_method(allow_none=True) not in (None, *known):
        multiprocessing.set_start_method(method, force=True)
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(list(preload))
    return context
