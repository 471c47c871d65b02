"""The cache folder, for downloads and cached results."""

from __future__ import annotations

import os
from pathlib import Path

from crystens.errors import CrystensError

CACHE_VARIABLE = "CRYSTENS_CACHE"


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet.

    `CRYSTENS_CACHE`, or `crystens` in `XDG_CACHE_HOME`, or `~/.cache/crystens`.

    Raises:
        CrystensError: if there is no home folder either.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return _expanded(own)
    if (shared := os.environ.get("XDG_CACHE_HOME")) and os.path.isabs(shared):  # others are to be ignored
        return Path(shared) / "crystens"
    return _expanded("~/.cache/crystens")


def _expanded(path: str) -> Path:
    """Return a path with `~` replaced."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise CrystensError(f"no home folder for {path}; set {CACHE_VARIABLE}=DIR") from error
