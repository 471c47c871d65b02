"""The Ray cluster for tasks.

It is the cluster that this process is connected to, else that at RAY_ADDRESS, else a local one, started without
dashboard and usage reports and shut down at the end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crystens.errors import CrystensError, first_line


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Yield the connected module ray; a cluster that was started for it is shut down at the end.

    Raises:
        CrystensError: if Ray is not installed or cannot be reached.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise CrystensError("Ray is not installed: pip install 'crystens[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_address(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises a plain Exception if its processes do not start in time
        if address == "local":
            raise CrystensError(f"Ray does not start: {first_line(error)}; run the same command again") from error
        raise CrystensError(
            f"cannot reach Ray at {address}: {first_line(error)}; start a cluster there, or unset RAY_ADDRESS to use "
            "this machine"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise an OSError if there is no answer at HOST:PORT; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
