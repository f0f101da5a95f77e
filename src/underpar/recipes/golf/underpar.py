"""Our own line of the 16 MB game, on top of the last published record."""

from underpar.compress.solver import Waterfill
from underpar.evaluate.adaptation import DocumentTTT, NgramCache
from underpar.model.plan import UNet
from underpar.recipes.base import Recipe, recipe
from underpar.recipes.golf.late import pr1855


@recipe("golf/water_filled", parent=pr1855)
def water_filled(r: Recipe) -> None:
    """Every weight as fine as its influence on the loss deserves, on a trellis, until the artifact is full.

    Expected: less loss from quantisation at the cap than clips chosen by hand, and no clip, width or rank to choose. Trains
    exactly as `golf/pr1855` does: `underpar run golf/water_filled --trained-as golf/pr1855`. Ours.
    """
    r.pack.quantiser = Waterfill()


@recipe("golf/short_chunks", parent=water_filled)
def short_chunks(r: Recipe) -> None:
    """Adapters learn from every 32 tokens instead of every 48; no rounds of SGD on the weights.

    Expected: half as many steps again for a document, in the time that rounds over few documents leave the device idle. Ours.
    """
    before = r.evaluate.adaptation
    assert isinstance(before, DocumentTTT)
    r.evaluate.adaptation = DocumentTTT(
        lora=before.lora, optimiser=before.optimiser, start=before.start, chunk_tokens=32
    )


@recipe("golf/no_recurrence", parent=short_chunks)
def no_recurrence(r: Recipe) -> None:
    """Every layer runs once, instead of three of them three times from 35 % of the run on.

    Expected: a quarter more steps in the same time, which a short run needs more: 0.004 bits per byte on `golf-mini`.
    At a record's budget, sixteen times that, the published records gain by recurrence. Ours.
    """
    assert isinstance(r.model.topology, UNet)
    r.model.topology.recurrence = None


@recipe("golf/underpar", parent=no_recurrence)
def ngram_cache(r: Recipe) -> None:
    """What followed the same 2, 3, 5 or 8 tokens earlier in a document is mixed into the prediction, with weights that learn.

    Expected: names and phrases that have left the window of 2,048 tokens are remembered; half a percent on long documents, for
    two seconds. Ours.
    """
    assert isinstance(r.evaluate.adaptation, DocumentTTT)
    r.evaluate.adaptation.cache = NgramCache()
