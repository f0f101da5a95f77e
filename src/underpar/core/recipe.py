"""Recipes: functions whose body is the difference from their parent.

    @recipe("golf/longcontext2048", parent=baseline)
    def longcontext2048(r: Recipe) -> None:
        '''Rows of 2,048 tokens instead of 1,024. Source: ...'''
        r.data.loader.seq_len = 2048

`resolve` builds the root config, applies every body from the oldest ancestor down, then the command line's overrides, and
freezes the result. What the recipe changed is computed by `diff`, never claimed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import getdoc
from typing import Generic, TypeVar

from underpar.core.config import Change, Config, apply_override, diff, fingerprint
from underpar.core.errors import ConfigError, suggest

R = TypeVar("R", bound=Config)


@dataclass(frozen=True, eq=False)
class RecipeEntry(Generic[R]):
    """A registered recipe or track: its name, its parent and the body that edits a config in place."""

    name: str
    body: Callable[[R], None]
    parent: "RecipeEntry[R] | None" = None

    @property
    def doc(self) -> str:
        """The whole docstring: what is expected, and the source."""
        return getdoc(self.body) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def lineage(self) -> "tuple[RecipeEntry[R], ...]":
        """From the oldest ancestor to this recipe."""
        return (*(self.parent.lineage if self.parent else ()), self)


@dataclass(frozen=True)
class Resolved(Generic[R]):
    """A frozen config, what made it, and its fingerprint. Nothing that changes a number is read from anywhere else."""

    name: str
    config: R
    lineage: tuple[str, ...]
    track: str | None
    overrides: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.config)


class Registry(Generic[R]):
    """The recipes and tracks of one root config class."""

    def __init__(self, root: type[R]) -> None:
        self.root = root
        self.recipes: dict[str, RecipeEntry[R]] = {}
        self.tracks: dict[str, RecipeEntry[R]] = {}

    def recipe(
        self, name: str, *, parent: RecipeEntry[R] | None = None
    ) -> Callable[[Callable[[R], None]], RecipeEntry[R]]:
        """Register a function as a recipe. Without a parent it starts from the defaults of the root config."""

        def register(body: Callable[[R], None]) -> RecipeEntry[R]:
            return _add(self.recipes, RecipeEntry(name, body, parent))

        return register

    def track(self, name: str) -> Callable[[Callable[[R], None]], RecipeEntry[R]]:
        """Register a function as a track: the budget and scale that a recipe is run at."""

        def register(body: Callable[[R], None]) -> RecipeEntry[R]:
            return _add(self.tracks, RecipeEntry(name, body))

        return register

    def find(self, name: str) -> RecipeEntry[R]:
        """The recipe called `name`. Raises ConfigError naming the nearest one."""
        if name not in self.recipes:
            raise ConfigError(f"no recipe '{name}'; {suggest(name, self.recipes)}")
        return self.recipes[name]

    def resolve(self, name: str, *, track: str | None = None, overrides: Iterable[str] = ()) -> Resolved[R]:
        """Build, edit, validate and freeze. Raises ConfigError on an unknown name, field, type or range, and where the track is
        none for this recipe.
        """
        entry = self.find(name)
        root = self.root()
        for ancestor in entry.lineage:
            ancestor.body(root)
        if track is not None:
            if track not in self.tracks:
                raise ConfigError(f"no track '{track}'; {suggest(track, self.tracks)}")
            self.tracks[track].body(root)
        texts = tuple(overrides)
        for text in texts:
            apply_override(root, text)
        try:
            config = root.frozen()
        except ConfigError as problem:
            if track is None:
                raise
            raise ConfigError(f"{name} on track {track}: {problem}") from None
        return Resolved(name, config, tuple(e.name for e in entry.lineage), track, texts)

    def changes(self, old: str, new: str) -> list[Change]:
        """The computed differences between two recipes."""
        return diff(self.resolve(old).config, self.resolve(new).config)


def _add(table: dict[str, RecipeEntry[R]], entry: RecipeEntry[R]) -> RecipeEntry[R]:
    if entry.name in table:
        raise ConfigError(f"two entries are called '{entry.name}'")
    if not entry.summary:
        raise ConfigError(f"'{entry.name}' needs a docstring: what to expect, and its source")
    table[entry.name] = entry
    return entry
