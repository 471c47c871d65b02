"""Objects built from configs: plain mappings with the class under `_target_`, as Hydra instantiates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from crystens.configs.keys import check_arguments
from crystens.errors import CrystensError, first_line


def build(config: Any, name: str, hint: str = "", **arguments: Any) -> Any:
    """Return the object of a config.

    Args:
        config: a mapping with `_target_`, plain or of OmegaConf.
        name: of the config's part, for messages: "model", "decode".
        hint: stands at the end of the message of a config that does not fit its class.
        arguments: further arguments of the class.

    Raises:
        CrystensError: if the class refuses an argument, in its own words where it has some.
    """
    check_arguments(config, name)
    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, CrystensError):
            raise cause from error
        raise CrystensError(f"cannot build {name} from its config: {first_line(cause or error)}{hint}") from error
    except OmegaConfBaseException as error:
        raise CrystensError(f"cannot build {name} from its config: {first_line(error)}") from error


def overridden(config: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a config with single keys exchanged; None in `overrides` leaves a key as it is."""
    return {**config, **{key: value for key, value in (overrides or {}).items() if value is not None}}
