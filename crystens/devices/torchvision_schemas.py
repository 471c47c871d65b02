"""Operator schemas that let a torchvision built for CUDA be imported beside a PyTorch built for the CPU only.

A package registry serves one torchvision wheel, built for CUDA. Beside a CPU-only PyTorch its compiled library cannot
be loaded; torchvision tolerates that, but then registers shape rules for `torchvision::nms` and `torchvision::qnms`,
operators that nobody has declared, and `import torchvision` dies with "operator torchvision::nms does not exist".
PyTorch Lightning, torchmetrics and imagen-pytorch import torchvision if it is installed, and fail with it, although
crystens calls neither operator.

PyTorch takes a second to import, and processes that only read files do not need it. Therefore the schemas are declared
just before torchvision is imported, by an import hook (a finder that never returns a module).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A Library withdraws its declarations when it is collected, so it lives as long as the process.
_declarations: list[torch.library.Library] = []


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is imported, and leaves the import to other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


def declare_before_torchvision() -> None:
    """Install the import hook that declares the missing operators before torchvision is imported."""
    if any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _BeforeTorchvision())


def declare_missing_operators() -> bool:
    """Declare torchvision's operators if its own library cannot; return whether anything was declared.

    Does nothing under a CUDA build of PyTorch, without torchvision, or where torchvision's library loads (every
    matching pair, and the CPU wheels of macOS and Windows): a second declaration would make that library fail. Must
    run before the first import of torchvision. Declares names only, no implementation: calling them still raises.
    """
    import torch

    if torch.version.cuda is not None or hasattr(torch.ops.torchvision, "nms") or _library_loads():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declarations.append(library)
    return True


def _library_loads() -> bool:
    """Return whether torchvision's library loads, by the same call as in torchvision; True without torchvision."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return True
    library = importlib.machinery.PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if library is None or library.origin is None:
        return False
    import torch

    try:
        torch.ops.load_library(library.origin)
    except (ImportError, OSError):
        return False
    return True
