"""Operator schemas that let a torchvision built for CUDA be imported beside a PyTorch built for the CPU only.

A package registry serves one torchvision wheel, built for CUDA. Beside a CPU-only PyTorch its compiled library cannot
be loaded; torchvision tolerates that, but then registers shape rules for `torchvision::nms` and `torchvision::qnms`,
operators that nobody has declared, and `import torchvision` dies with "operator torchvision::nms does not exist".
PyTorch Lightning, torchmetrics and imagen-pytorch import torchvision whenever it is installed and die with it, although
nothing here ever calls either operator.
"""

import importlib.machinery
import importlib.util

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A Library withdraws its declarations when it is collected, so it lives as long as the process.
_declarations: list[torch.library.Library] = []


def declare_missing_operators() -> bool:
    """Declare torchvision's operators if its own library cannot; return whether anything was declared.

    Does nothing under a CUDA build of PyTorch, without torchvision, or where torchvision's library loads (every
    matching pair, and the CPU wheels of macOS and Windows): a second declaration would make that library fail. Must
    run before the first import of torchvision. Declares names only, no implementation: calling them still raises.
    """
    if torch.version.cuda is not None or hasattr(torch.ops.torchvision, "nms") or _library_loads():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declarations.append(library)
    return True


def _library_loads() -> bool:
    """Try what torchvision itself does first; True as well where there is no torchvision to mend."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return True
    library = importlib.machinery.PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except (ImportError, OSError):
        return False
    return True
