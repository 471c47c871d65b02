"""Cache key of a store: digests of all that it is made from, so that a stale store is never opened.

All that decides a store goes in: the names and bytes of the source's files, the options, the versions of the libraries,
and the code that reads. A stamp stands for the bytes where the files look as they did: same names, sizes, times.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import crystens
from crystens.sources.limits import Limits
from crystens.sources.source import Source

_LIBRARIES = ("gemmi", "moyopy", "numpy", "pymatgen", "ase")


def made_from(source: Source, limits: Limits, time_limit: float | None, duplicates: str) -> dict[str, Any]:
    """Return all that decides a store beside the bytes of the source's files.

    Args:
        source: what is read.
        limits: what is usable, and in which form it is kept.
        time_limit: longest time for one input, seconds; None for none.
        duplicates: what to do with crystals that are the same.
    """
    return {
        "source": f"{type(source).__module__}.{type(source).__qualname__}",
        "variant": source.variant(),
        "properties": list(source.properties or ()),
        "limits": {"class": type(limits).__qualname__, **asdict(limits)},
        "time_limit": time_limit,
        "duplicates": duplicates,
        "crystens": crystens.__version__,
        "code": _code_digest(type(source)),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def read_with(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `made_from` holds as flat options, by the name to report, such as `data.limits.cell`."""
    return {
        "kind of the source": f"{made_from['source']} {made_from['variant']}".strip(),
        "files of the source": made_from.get("contents"),
        "data.properties": made_from.get("properties", []),
        **{f"data.limits.{name}": value for name, value in made_from["limits"].items() if name != "class"},
        "data.ingest.time_limit": made_from["time_limit"],
        "data.ingest.duplicates": made_from["duplicates"],
        "version of crystens": made_from["crystens"],
        "code of crystens that reads": made_from["code"],
        **{f"version of {name}": number for name, number in made_from["libraries"].items()},
    }


@cache
def _code_digest(kind: type[Source]) -> str:
    """Return a digest of the code that reads: this package's, and that of a source from elsewhere."""
    package = Path(crystens.__file__).parent
    rooms = ("symmetry", "cif", "sources", "formats", "datasets", "ingest")
    paths = [package / "crystal.py", *(path for room in rooms for path in sorted((package / room).glob("*.py")))]
    elsewhere = inspect.getsourcefile(kind)
    if elsewhere is not None and Path(elsewhere) not in paths:
        paths.append(Path(elsewhere))
    return digest(*(path.read_bytes() for path in paths if path.is_file()))


def stamps(contents: dict[str, str | Path]) -> Iterator[str]:
    """Yield for each file what changes when the file does, without reading it."""
    for name, path in contents.items():
        try:
            status = os.stat(path)
            yield f"{name}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
        except OSError as error:
            yield f"{name}\0{path}\0{error.errno}"


def bytes_of(contents: dict[str, str | Path]) -> Iterator[str | bytes]:
    """Yield the names and bytes of all files; of what cannot be read, why."""
    for name, path in contents.items():
        yield f"\0{name}\0"
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                yield "not a regular file"
                continue
            with open(path, "rb") as file:
                while piece := file.read(2**20):
                    yield piece
        except OSError as error:
            yield f"cannot be read: {error.errno}"


def digest(*pieces: str | bytes) -> str:
    """Return a digest of texts and bytes, 32 letters."""
    hashed = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        hashed.update(piece if isinstance(piece, bytes) else piece.encode("utf-8", errors="surrogateescape"))
    return hashed.hexdigest()
