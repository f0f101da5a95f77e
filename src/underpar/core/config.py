"""The configuration tree: slotted, keyword-only, typed dataclasses that can be frozen, diffed, hashed and rebuilt from JSON.

    @config
    class Muon(Optimizer):
        lr: PositiveFloat = 0.02

Choice is a sibling class: a field whose type is a config class accepts that class and every config derived from it, and
`--set optim.matrix=Muon(lr=0.04)` picks one on the command line. There is no string switch and no enum.
"""

import ast
import copy
import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

from underpar.core.errors import ConfigError, suggest

__all__ = [
    "Change",
    "Config",
    "Fraction",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Range",
    "abstract_config",
    "apply_override",
    "config",
    "default_of",
    "diff",
    "field",
    "fingerprint",
    "from_dict",
    "to_dict",
]


@dataclass(frozen=True)
class Range:
    """Closed bounds of a number, for use in `Annotated`. `above` excludes its value."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None

    def __str__(self) -> str:
        parts = []
        if self.above is not None:
            parts.append(f"> {self.above:g}")
        if self.at_least is not None:
            parts.append(f">= {self.at_least:g}")
        if self.at_most is not None:
            parts.append(f"<= {self.at_most:g}")
        return " and ".join(parts)

    def __contains__(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
        )


PositiveInt = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(at_least=0)]
Fraction = Annotated[float, Range(at_least=0, at_most=1)]

_REGISTRY: dict[str, type["Config"]] = {}

_peek = object.__getattribute__
"""Reads a field without a `ReadLedger` noticing: comparing, printing and writing a setting is not using it."""


class Config:
    """Base of every configuration class. Derive and decorate with `@config`."""

    __slots__ = ("_frozen",)
    _types: ClassVar[dict[str, Any]]

    def __setattr__(self, name: str, value: Any) -> None:
        known = field_types(type(self))
        if name not in known:
            raise ConfigError(f"{type(self).__name__} has no field '{name}'; {suggest(name, known)}")
        if getattr(self, "_frozen", False):
            raise ConfigError(f"{type(self).__name__}.{name} cannot be set: the recipe is resolved and frozen")
        object.__setattr__(self, name, value)

    def check(self) -> None:
        """Raise ConfigError when fields that are fine alone do not fit together."""

    def frozen(self: "C") -> "C":
        """A validated, deeply immutable copy. Raises ConfigError naming the path of the first bad value."""
        twin = copy.deepcopy(self)
        _validate(twin, "")
        _freeze(twin)
        return twin

    def __deepcopy__(self: "C", memo: dict[int, Any]) -> "C":
        twin = object.__new__(type(self))
        for name in field_types(type(self)):
            object.__setattr__(twin, name, copy.deepcopy(_peek(self, name), memo))
        return twin

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and to_dict(self) == to_dict(other)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_peek(self, name)!r}" for name in field_types(type(self)))
        return f"{type(self).__name__}({fields})"

    def __str__(self) -> str:
        """The class name and the fields that differ from its defaults: 'Muon(lr=0.02)'."""
        shown = []
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _peek(self, spec.name)
            if value != default_of(spec):
                shown.append(f"{spec.name}={show(value)}")
        return f"{type(self).__name__}({', '.join(shown)})" if shown else type(self).__name__


C = TypeVar("C", bound=Config)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def config(cls: type[C]) -> type[C]:
    """Make `cls` a slotted keyword-only dataclass and register its name, which must be unique (JSON refers to it)."""
    made = abstract_config(cls)
    if made.__name__ in _REGISTRY and _REGISTRY[made.__name__].__module__ != made.__module__:
        raise TypeError(f"two config classes are called {made.__name__}")
    _REGISTRY[made.__name__] = made
    return made


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def abstract_config(cls: type[C]) -> type[C]:
    """As `config` for a base with fields of its own that is never a choice itself. A base without fields needs neither."""
    return dataclass(slots=True, kw_only=True, repr=False, eq=False)(cls)


def field_types(cls: type[Config]) -> dict[str, Any]:
    """Field name -> resolved type annotation, in order of definition."""
    cached = cls.__dict__.get("_types")
    if cached is None:
        hints = typing.get_type_hints(cls, include_extras=True)
        cached = {spec.name: hints[spec.name] for spec in dataclasses.fields(cls)}  # type: ignore[arg-type]
        cls._types = cached
    return cached


def default_of(spec: "dataclasses.Field[Any]") -> Any:
    """The value of a field that is not given; `dataclasses.MISSING` where one must be given."""
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default


# ------------------------------------------------------------------------------------------------- types and values


def choices(cls: type[Config]) -> dict[str, type[Config]]:
    """The concrete config classes that a field of type `cls` accepts, by name."""
    return {name: known for name, known in _REGISTRY.items() if issubclass(known, cls)}


def _expected(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        base, *extra = get_args(kind)
        bounds = " and ".join(str(e) for e in extra if isinstance(e, Range))
        return f"{_expected(base)} {bounds}".strip()
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(a) for a in get_args(kind))
    if origin is tuple:
        return f"tuple of {_expected(get_args(kind)[0])}"
    if kind is type(None):
        return "None"
    if isinstance(kind, type) and issubclass(kind, Config):
        return " | ".join(sorted(choices(kind))) or kind.__name__
    return getattr(kind, "__name__", str(kind))


class _OutOfRange(ConfigError):
    """The type is right and the value is not: no other option of a union can help."""


def coerce(value: Any, kind: Any, path: str) -> Any:
    """`value` as the annotated type `kind` (an int is accepted for a float). Raises ConfigError naming `path`."""
    origin = get_origin(kind)
    if origin is Annotated:
        base, *extra = get_args(kind)
        try:
            value = coerce(value, base, path)
        except _OutOfRange:
            raise
        except ConfigError:
            raise _wrong_type(value, kind, path) from None
        for bound in extra:
            if isinstance(bound, Range) and value not in bound:
                raise _OutOfRange(f"{path} = {show(value)} is out of range: must be {bound}")
        return value
    if origin in (Union, types.UnionType):
        for option in get_args(kind):
            try:
                return coerce(value, option, path)
            except _OutOfRange:
                raise
            except ConfigError:
                continue
        raise _wrong_type(value, kind, path)
    if origin is Literal:
        if value in get_args(kind) and not isinstance(value, bool):
            return value
        hint = f"; {suggest(value, [str(a) for a in get_args(kind)])}" if isinstance(value, str) else ""
        raise ConfigError(f"{path} = {show(value)}: expected {_expected(kind)}{hint}")
    if origin is tuple:
        item = get_args(kind)[0]
        if isinstance(value, list | tuple):
            return tuple(coerce(v, item, f"{path}[{i}]") for i, v in enumerate(value))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, path)
    elif kind in (int, float) and isinstance(value, bool):
        pass
    elif isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _wrong_type(value, kind, path)


def _finite(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _OutOfRange(f"{path} = {number} is out of range: must be finite")
    return number


def _wrong_type(value: Any, kind: Any, path: str) -> ConfigError:
    got = type(value).__name__ if isinstance(value, Config) else f"{show(value)} ({type(value).__name__})"
    names = [n for o in _options(kind) if isinstance(o, type) and issubclass(o, Config) for n in choices(o)]
    near = f"; {suggest(value, names)}" if isinstance(value, str) and names else ""
    return ConfigError(f"{path} = {got}: expected {_expected(kind)}{near}")


def _validate(node: Config, path: str, owners: dict[int, str] | None = None) -> None:
    """Coerce every field and run every check, children first. A config may stand in one place only."""
    owners = {} if owners is None else owners
    for name, kind in field_types(type(node)).items():
        here = f"{path}.{name}" if path else name
        value = coerce(_peek(node, name), kind, here)
        object.__setattr__(node, name, value)
        for index, child in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(child, Config):
                place = f"{here}[{index}]" if isinstance(value, tuple) else here
                if (other := owners.setdefault(id(child), place)) != place:
                    raise ConfigError(f"{place} and {other} are one object, and a change to one changes both; copy it")
                _validate(child, place, owners)
    try:
        node.check()
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}" if path else str(problem)) from None


def _freeze(node: Config) -> None:
    for name in field_types(type(node)):
        value = _peek(node, name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, Config):
                _freeze(child)
    object.__setattr__(node, "_frozen", True)


def show(value: Any) -> str:
    """A value as a person writes it: configs by name, tuples in brackets, floats without noise."""
    if isinstance(value, tuple):
        return "(" + ", ".join(show(v) for v in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value) if isinstance(value, Config) else repr(value)


# ------------------------------------------------------------------------------------------------- JSON


def to_dict(node: Any) -> Any:
    """Plain JSON data; a config becomes {"type": class name, field: value, ...}."""
    if isinstance(node, Config):
        return {"type": type(node).__name__} | {n: to_dict(_peek(node, n)) for n in field_types(type(node))}
    if isinstance(node, tuple):
        return [to_dict(v) for v in node]
    return node


def from_dict(data: Any, expected: type[C]) -> C:
    """The frozen config that `to_dict` wrote. Only registered classes derived from `expected` are built.

    Raises ConfigError on an unknown class or field, a missing field without default, a wrong type or range.
    """
    node = _build(data, expected, expected.__name__)
    if not isinstance(node, expected):
        raise _wrong_type(node, expected, expected.__name__)
    return node.frozen()


def _build(data: Any, kind: Any, path: str) -> Any:
    if isinstance(data, list):
        inner = next((a for a in _options(kind) if get_origin(a) is tuple), None)
        if inner is None:
            raise ConfigError(f"{path} is a list of {len(data)}: expected {_expected(kind)}")
        item = get_args(inner)[0]
        return tuple(_build(v, item, f"{path}[{i}]") for i, v in enumerate(data))
    if not isinstance(data, dict):
        return data
    bases = [a for a in _options(kind) if isinstance(a, type) and issubclass(a, Config)]
    name = data.get("type")
    valid = {n: c for base in bases for n, c in choices(base).items()}
    if not isinstance(name, str) or name not in valid:
        raise ConfigError(f"{path}: unknown type {name!r}; {suggest(str(name), valid)}")
    cls = valid[name]
    known = field_types(cls)
    for key in data:
        if key != "type" and key not in known:
            raise ConfigError(f"{path}: {name} has no field '{key}'; {suggest(key, known)}")
    try:
        return cls(**{k: _build(v, known[k], f"{path}.{k}") for k, v in data.items() if k != "type"})
    except TypeError as problem:
        raise ConfigError(f"{path}: {problem}") from None


def _options(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(o for a in get_args(kind) for o in _options(a))
    return (kind,)


def fingerprint(node: Config) -> str:
    """16 hex digits that identify every setting: sha256 of the canonical JSON of the tree."""
    text = json.dumps(to_dict(node), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Change:
    """One computed difference between two configs. `old` or `new` is None where an element was inserted or removed."""

    path: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.path}: + {self.new}"
        if self.new is None:
            return f"{self.path}: - {self.old}"
        return f"{self.path}: {self.old} -> {self.new}"


def diff(old: Config, new: Config, path: str = "") -> list[Change]:
    """Every difference, leaf by leaf; tuples as sequences (inserted, removed, replaced), not index by index.

    A replaced element that stays a config of its class is compared field by field: 'stages[2].short_window: 5 -> 2'.
    """
    if type(old) is not type(new):
        return [Change(path, str(old), str(new))]
    changes: list[Change] = []
    for name in field_types(type(old)):
        here = f"{path}.{name}" if path else name
        a, b = _peek(old, name), _peek(new, name)
        if a == b:
            continue
        if isinstance(a, Config) and isinstance(b, Config):
            changes += diff(a, b, here)
        elif isinstance(a, tuple) and isinstance(b, tuple):
            changes += _sequence_diff(a, b, here)
        else:
            changes.append(Change(here, show(a), show(b)))
    return changes


def _sequence_diff(a: tuple[Any, ...], b: tuple[Any, ...], path: str) -> list[Change]:
    left, right = [show(v) for v in a], [show(v) for v in b]
    changes: list[Change] = []
    for op, i, j, k, m in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if op == "replace" and i == k and _same_configs(a[i:j], b[k:m]):
            changes += [c for n in range(i, j) for c in diff(a[n], b[n], f"{path}[{n}]")]
        elif op != "equal":
            changes += [Change(path, v, None) for v in left[i:j]] + [Change(path, None, v) for v in right[k:m]]
    return changes


def _same_configs(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return len(a) == len(b) and all(isinstance(x, Config) and type(x) is type(y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------- overrides


def apply_override(root: Config, text: str) -> None:
    """Apply one 'a.b.c=value' to a config that is not frozen, typed by the field it names.

    The value is a literal (3, 1e-3, 524_288, None, (1, 2)), a bare word for a text field, or a config:
    'LeakyReluSquared(negative_slope=0.5)'. Raises ConfigError naming the nearest valid field or class.
    """
    path, equals, raw = text.partition("=")
    path, raw = path.strip(), raw.strip()
    if not equals or not path:
        raise ConfigError(f"'{text}' is not an override; write path.to.field=value")
    node: Any = root
    *parents, leaf = path.split(".")
    walked: list[str] = []
    for name in parents:
        node = _child(node, name, walked)
        walked.append(name)
    _child(node, leaf, walked)
    kind = field_types(type(node))[leaf]
    setattr(node, leaf, coerce(_parse(raw, kind, path), kind, path))


def _child(node: Any, name: str, walked: list[str]) -> Any:
    """The field `name`, or where it is 'name[i]' an element of a tuple."""
    name, bracket, index = name.partition("[")
    found = _field(node, name, walked)
    if not bracket:
        return found
    try:
        return found[int(index.removesuffix("]"))]
    except (TypeError, ValueError, IndexError):
        where = ".".join([*walked, name])
        raise ConfigError(f"{where}[{index}: {where} is {show(found)}; count its elements from 0") from None


def _field(node: Any, name: str, walked: list[str]) -> Any:
    where = ".".join(walked) or "the recipe"
    if not isinstance(node, Config):
        raise ConfigError(f"{where} is {show(node)}, which has no field '{name}'")
    known = field_types(type(node))
    if name not in known:
        raise ConfigError(f"{where} ({type(node).__name__}) has no field '{name}'; {suggest(name, known)}")
    return getattr(node, name)


def _parse(raw: str, kind: Any, path: str) -> Any:
    options = _options(kind)
    if str in options and raw not in ("None",) and not raw.startswith(("'", '"')):
        return raw
    try:
        tree = ast.parse(raw, mode="eval").body
    except SyntaxError:
        return raw  # a bare word such as a Literal's value with a dash; coerce() judges it
    return _evaluate(tree, raw, path)


def _evaluate(tree: ast.expr, raw: str, path: str) -> Any:
    """Literals and config constructors; nothing else is ever executed."""
    match tree:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
            cls = _REGISTRY.get(name)
            if cls is None:
                raise ConfigError(f"{path}: unknown config '{name}'; {suggest(name, _REGISTRY)}")
            known = field_types(cls)
            values = {}
            for keyword in keywords:
                if keyword.arg not in known:
                    raise ConfigError(
                        f"{path}: {name} has no field '{keyword.arg}'; {suggest(str(keyword.arg), known)}"
                    )
                inner = f"{path}.{keyword.arg}"
                values[keyword.arg] = coerce(_evaluate(keyword.value, raw, inner), known[keyword.arg], inner)
            try:
                return cls(**values)
            except TypeError as problem:
                raise ConfigError(f"{path}: {problem}") from None
        case ast.Name(id=name):
            if name in _REGISTRY:
                return _evaluate(ast.Call(func=tree, args=[], keywords=[]), raw, path)
            return {"true": True, "false": False, "none": None}.get(name.lower(), name)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_evaluate(item, raw, path) for item in items)
        case _:
            try:
                return ast.literal_eval(tree)
            except (ValueError, TypeError):
                return raw
