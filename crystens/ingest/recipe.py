"""Cache key of a store: a digest of everything that it depends on, so that a stale store is never opened.

The key covers the names and bytes of the source's files, the options, the versions of libraries, and the code that
reads. If names, sizes and modification times are unchanged (the stamp), the known key is reused without reading the
files.
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
    """Return everything that a store depends on, apart from the bytes of the source's files.

    Args:
        source: the source.
        limits: bounds on usable crystals, and their form.
        time_limit: time limit for one input, seconds; None for none.
        duplicates: treatment of duplicates.
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
    """Return the options in `made_from` as a flat dictionary, by the name to report, such as `data.limits.cell`."""
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
    """Return a digest of the code that reads: modules of this package, and of a source defined elsewhere."""
    package = Path(crystens.__file__).parent
    rooms = ("symmetry", "cif", "sources", "formats", "datasets", "ingest")
    paths = [package / "crystal.py", *(path for room in rooms for path in sorted((package / room).glob("*.py")))]
    elsewhere = inspect.getsourcefile(kind)
    if elsewhere is not None and Path(elsewhere) not in paths:
        paths.append(Path(elsewhere))
    return digest(*(path.read_bytes() for path in paths if path.is_file()))


def stamps(contents: dict[str, str | Path]) -> Iterator[str]:
    """Yield the name, size and times of each file, without reading it."""
    for name, path in contents.items():
        try:
            status = os.stat(path)
            yield f"{name}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
        except OSError as error:
            yield f"{name}\0{path}\0{error.errno}"


def bytes_of(contents: dict[str, str | Path]) -> Iterator[str | bytes]:
    """Yield the names and bytes of all files; for an unreadable file the reason."""
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
