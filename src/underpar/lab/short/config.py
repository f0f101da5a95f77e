"""`core.config` for a script: its configuration was resolved and checked when the script was made, and is complete."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

__all__ = ["Config", "abstract_config", "config", "field", "fingerprint", "to_dict"]


class Config:
    """Base of every configuration class: fields are what it was made with."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.__dict__}"

    def frozen(self) -> "Config":
        """Itself: nothing in a script changes a setting."""
        return self


def abstract_config(cls: type) -> type:
    """As it is."""
    return cls


def config(cls: type) -> type:
    """As it is."""
    return cls


def field(*, default_factory: Callable[[], Any]) -> Any:
    """The default: nothing in a script changes it."""
    return default_factory()


def to_dict(node: Any) -> Any:
    """Plain JSON data, as `core.config` writes it."""
    if isinstance(node, Config):
        return {"type": type(node).__name__} | {name: to_dict(value) for name, value in node.__dict__.items()}
    if isinstance(node, tuple):
        return [to_dict(value) for value in node]
    return node


def fingerprint(node: Any) -> str:
    """The same digits as the full package gives."""
    text = json.dumps(to_dict(node), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
