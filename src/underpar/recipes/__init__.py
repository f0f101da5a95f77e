"""Published and bundled recipes: each function is the difference from its parent."""

from underpar.recipes import golf, quickstart, speedrun, tracks
from underpar.recipes.base import Recipe, registry

__all__ = ["Recipe", "golf", "quickstart", "registry", "speedrun", "tracks"]
