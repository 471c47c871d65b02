"""The top-level keys of train.py and sample.py, and the resolvers of conf/. Importing this module registers them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from crystens.encoding import header_rows, image_side
from crystens.generator import CHUNK_SIZE
from crystens.networks.facts import COUNTED


@dataclass
class EncodingConfig:
    """Encoding options, which the groups data and scaling refer to."""

    sites: str = "all"
    distance: str = MISSING
    atoms: str = MISSING
    space_group: str | None = None
    wyckoff: str = "letter"


@dataclass
class TrainConfig:
    """All top-level keys of train.py; any other key is an error."""

    data: Any = MISSING
    encoding: EncodingConfig = MISSING
    scaling: Any = MISSING
    decode: Any = MISSING
    trainer: Any = MISSING
    acceleration: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    model: Any = MISSING
    seed: int = 0
    max_sites: int = 52
    threads: Any = "auto"
    num_samples: int = 0
    objective: str | None = None
    minutes: float | None = None
    pretrained: str | None = None
    resume: str | None = None
    resume_on_other_data: bool = False
    image_side: int = MISSING
    run_folder: str = MISSING


@dataclass
class GuidanceConfig:
    """Guidance of samples: to the conditions by `factor`, and to a value of a property by a regressor."""

    factor: float = 1.0
    regressor: str | None = None
    target: float | None = None
    scale: float = 1.0


@dataclass
class SampleConfig:
    """All top-level keys of sample.py."""

    decode: Any = MISSING
    acceleration: Any = MISSING
    logger: Any = None
    checkpoint: str | None = None
    images: str | None = None
    num_samples: int = 100
    chunk_size: int = CHUNK_SIZE
    seed: int = 0
    device: str = "auto"
    threads: Any = "auto"
    model: dict[str, Any] = field(default_factory=dict)
    condition: dict[str, Any] = field(default_factory=dict)  # `crystens.asking.question` reads the values
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    questions: str | None = None
    out: str | None = None
    run_folder: str = MISSING


def register() -> None:
    """Register the schemas and the resolvers that conf/ uses."""
    store = ConfigStore.instance()
    store.store("train_schema", TrainConfig)
    store.store("sample_schema", SampleConfig)
    OmegaConf.register_new_resolver("image_side", image_side, replace=True)
    OmegaConf.register_new_resolver("header_rows", header_rows, replace=True)
    OmegaConf.register_new_resolver("facts_of", lambda properties: [*COUNTED, *properties], replace=True)
    OmegaConf.register_new_resolver("is_orbits", lambda sites: sites == "orbits", replace=True)
    OmegaConf.register_new_resolver("folder_or", lambda folder, other: folder or other, replace=True)


register()
