"""How the threads of OpenMP, with which torch computes on a CPU, wait for each other.

By themselves they spin: a thread that has finished its part keeps its core busy until the others have too. Beside
another busy process one of them has no core for milliseconds at a time, and the rest burn theirs meanwhile: training
was 31 times slower than alone, and is 1.2 times slower where threads sleep (`experiments/threads`).

An OpenMP library reads its settings once, when it is loaded, which `import torch` does. The standard's own variable is
known to all of them: libgomp in torch's wheels for Linux, and the libraries of LLVM and Intel elsewhere.
"""

from __future__ import annotations

import os

POLICY = "OMP_WAIT_POLICY"
_SET_BY_USER = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def let_threads_sleep() -> None:
    """Have waiting threads sleep, in this process and those that it starts, unless the user chose how they wait.

    Must run before torch is imported; afterwards it changes new processes only.
    """
    if not any(name in os.environ for name in _SET_BY_USER):
        os.environ[POLICY] = "passive"
