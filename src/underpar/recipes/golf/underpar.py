"""Our own line of the 16 MB game, on top of the last published record."""

from underpar.compress.solver import Waterfill
from underpar.recipes.base import Recipe, recipe
from underpar.recipes.golf.late import pr1855


@recipe("golf/water_filled", parent=pr1855)
def water_filled(r: Recipe) -> None:
    """Every weight as fine as its influence on the loss deserves, on a trellis, until the artifact is full.

    Expected: less loss from quantisation at the cap than clips chosen by hand, and no clip, width or rank to choose. Trains
    exactly as `golf/pr1855` does: `underpar run golf/water_filled --trained-as golf/pr1855`. Ours.
    """
    r.pack.quantiser = Waterfill()
