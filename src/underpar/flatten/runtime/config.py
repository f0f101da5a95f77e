"""`core.config` for a script: its configuration was resolved and checked when the script was made, so types are not read."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Config", "abstract_config", "config", "field", "fingerprint", "from_dict", "to_dict"]

_classes: dict[str, type] = {}


class Config:
    """Base of every configuration class."""

    def frozen(self) -> "Config":
        """Itself: nothing in a script changes a setting."""
        return self


def abstract_config(cls: Any) -> Any:
    """A dataclass."""
    return dataclass(kw_only=True)(cls)


def config(cls: Any) -> Any:
    """A dataclass that `from_dict` knows by name."""
    _classes[cls.__name__] = made = abstract_config(cls)
    return made


def to_dict(node: Any) -> Any:
    """Plain JSON data, as `core.config` writes it."""
    if isinstance(node, Config):
        return {"type": type(node).__name__} | {f.name: to_dict(getattr(node, f.name)) for f in fields(node)}  # type: ignore[arg-type]
    if isinstance(node, tuple):
        return [to_dict(value) for value in node]
    return node


def from_dict(data: Any, expected: Any = None) -> Any:
    """What `to_dict` wrote."""
    if isinstance(data, list):
        return tuple(from_dict(value) for value in data)
    if isinstance(data, dict):
        return _classes[data["type"]](**{key: from_dict(value) for key, value in data.items() if key != "type"})
    return data


def fingerprint(node: Any) -> str:
    """The same digits as the full package gives."""
    text = json.dumps(to_dict(node), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
