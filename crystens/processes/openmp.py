"""How the threads of OpenMP, with which torch computes on a CPU, wait for each other.

By default libgomp's threads spin 300,000 times before they sleep: a thread that has finished its part keeps its core
busy until the others have too. Beside another busy process one of them has no core for milliseconds at a time, and
training was 31 times slower than alone. Threads that sleep at once cost 30 % of training on a free machine. A thousand
spins cost 7 % there, and training beside a busy process takes 1.7 times as long as on a free machine
(`experiments/threads`).

libgomp, in torch's wheels for Linux, reads its settings once, when `import torch` loads it. Other OpenMP libraries
ignore this variable and keep their defaults.
"""

from __future__ import annotations

import os

SPINS = "GOMP_SPINCOUNT"
_SET_BY_USER = (SPINS, "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


def limit_spinning() -> None:
    """Limit the spins of waiting threads, here and in processes started from here, unless the user chose how they wait.

    Must run before torch is imported; afterwards it changes new processes only.
    """
    if not any(name in os.environ for name in _SET_BY_USER):
        os.environ[SPINS] = "1000"
