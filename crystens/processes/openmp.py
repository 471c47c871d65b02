"""Waiting policy of OpenMP threads, which torch uses on a CPU.

By default libgomp's threads spin 300,000 times before they sleep, so that a finished thread keeps its core busy. If
another process uses a core too, one thread may wait for milliseconds while the others spin, and training was 31 times
slower. Without spinning, training is 30 % slower on a free machine. With a thousand spins it is 7 % slower there, and
1.7 times slower beside a busy process (`experiments/threads`).

libgomp, in torch's wheels for Linux, reads its settings once, when `import torch` loads it. Other OpenMP libraries
ignore this variable and keep their defaults.
"""

from __future__ import annotations

import os

SPINS = "GOMP_SPINCOUNT"
_SET_BY_USER = (SPINS, "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


def limit_spinning() -> None:
    """Limit the spins of waiting threads, in this process and its children, unless the user has set a policy.

    Must run before torch is imported; afterwards it changes new processes only.
    """
    if not any(name in os.environ for name in _SET_BY_USER):
        os.environ[SPINS] = "1000"
