"""The 16 MB game: the published recipes, oldest first, each the difference from its parent."""

from underpar.recipes.golf import early, late, underpar, variations
from underpar.recipes.golf.early import baseline, longcontext2048, pr122, seq4096
from underpar.recipes.golf.late import pr1736, pr1787, pr1855

__all__ = [
    "baseline", "early", "late", "longcontext2048", "pr122", "pr1736", "pr1787", "pr1855", "seq4096", "underpar", "variations",
]  # fmt: skip
