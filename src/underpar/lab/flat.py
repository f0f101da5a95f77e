"""A resolved recipe as one self-contained script."""

import json
from functools import lru_cache
from typing import Any

from underpar.core.config import Config, field_types, from_dict, to_dict
from underpar.flatten.flatten import Script, flatten
from underpar.recipes import Recipe

ENTRY = "underpar.lab.script"
"""The module whose `main` is the program."""


def flat_script(config: Recipe, name: str, *, readable: bool = False) -> Script:
    """The script of the recipe called `name`. The seed is an argument of the script, not a part of it.

    Raises FlattenError for a construct that one file cannot hold. Cost: seconds; the same configuration is made once a process.
    """
    data = to_dict(config) | {"seed": Recipe().seed}
    return _made(json.dumps(data), name, readable)


@lru_cache
def _made(data: str, name: str, readable: bool) -> Script:
    config = from_dict(json.loads(data), Recipe)
    return flatten(ENTRY, to_dict(config), _homes(config), name, readable=readable)


def _homes(value: Any) -> dict[str, str]:
    """Config class -> its module, for every class in a tree."""
    if isinstance(value, tuple):
        return {name: home for item in value for name, home in _homes(item).items()}
    if not isinstance(value, Config):
        return {}
    found = {type(value).__name__: type(value).__module__}
    for name in field_types(type(value)):
        found |= _homes(getattr(value, name))
    return found
