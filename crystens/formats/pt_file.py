"""Loading files saved by torch, without executing anything in them.

Tensors, NumPy arrays, plain values and the settings of a command line are loaded. Objects of PyTorch Geometric, such as
the batch of test crystals in DiffCSP's `eval_diff.pt`, become placeholders without content. Anything else is rejected,
because loading it would call functions that the file names.
"""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import types
from pathlib import Path
from typing import Any

import numpy as np

from crystens.errors import CrystensError, first_line

_GRAPHS = "torch_geometric."
_NUMPY = ("numpy._core.multiarray", "numpy.core.multiarray")  # the second: before NumPy 2
# Errors of torch for a damaged file; the last for one that claims to hold more than fits into the memory.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(struct.error, MemoryError),
)


class _Graph:
    """Stands for an object of PyTorch Geometric."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _GraphMaker:
    """Replaces the function of PyTorch Geometric that makes the class of a batch."""

    def __new__(cls) -> Any:
        return _Graph


def load_pt(path: Path, keys: tuple[str, ...], expected: str) -> Any:
    """Return the contents of a file.

    Args:
        path: the file.
        keys: the entries that the caller needs, for messages.
        expected: description of the expected file, for messages.

    Raises:
        CrystensError: if the file cannot be read, or loading it would execute code.
    """
    import torch  # here, so that processes that read CIFs do not import torch

    try:
        with torch.serialization.safe_globals([*_plain_objects(), *_graphs(path)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", first_line(error))  # torch sets it in bold
        raise CrystensError(
            f"{path} holds more than tensors, NumPy arrays and plain values ({text[:200]}); save the entries "
            f"{', '.join(keys)} alone, as tensors, to a new file"
        ) from error
    except _DAMAGE as error:
        raise CrystensError(f"cannot read {path}: {first_line(error)[:200]}; give {expected}") from error


def _plain_objects() -> list[Any]:
    """Return the other types that may be loaded: settings, NumPy's arrays and numbers, under all their names."""
    array = np.zeros(0)
    kinds = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]
    plain: list[Any] = [argparse.Namespace, types.SimpleNamespace, np.ndarray, np.dtype, *kinds]
    for module in _NUMPY:
        plain += [
            (array.__reduce__()[0], f"{module}._reconstruct"),
            (np.float64(0).__reduce__()[0], f"{module}.scalar"),
        ]
    return plain


def _graphs(path: Path) -> list[Any]:
    """Return placeholders for the names of PyTorch Geometric in a file."""
    import torch

    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, *_DAMAGE):
        return []  # older than torch 1.6, or damaged: loading raises the error
    return [
        (_GraphMaker if name.endswith("InheritanceGetter") else _Graph, name)
        for name in named
        if name.startswith(_GRAPHS)
    ]
