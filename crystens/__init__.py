"""Generative models of crystals on CrysTens, one image-like encoding of a crystal."""

from crystens.torchvision_schemas import declare_missing_operators

# The one effect that importing crystens has: it must come before Lightning or torchmetrics imports torchvision, and
# those are imported all over the package. Without it a CPU-only PyTorch beside the registry's torchvision cannot start.
declare_missing_operators()

__version__ = "0.1.0"
