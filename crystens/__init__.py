"""Generative models of crystals on CrysTens, one image-like encoding of a crystal."""

from crystens.torchvision_schemas import declare_before_torchvision

# The one effect that importing crystens has: Lightning and torchmetrics import torchvision, and are imported all over
# the package. Without it a CPU-only PyTorch beside the registry's torchvision cannot start.
declare_before_torchvision()

__version__ = "0.1.0"
