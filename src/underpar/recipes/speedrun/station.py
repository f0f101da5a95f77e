"""The station recipe: record 67 and five small changes, one step each, and what became of them."""

from underpar.nn.layers import TheseLayers
from underpar.nn.lookback import BigramTable, SparseBigramTable
from underpar.nn.value_embedding import SelfGatedValueTables
from underpar.optim.schedules import ClampedCooldown
from underpar.recipes.base import Recipe, recipe
from underpar.recipes.speedrun.record67 import record67


@recipe("speedrun/lr_floor", parent=record67)
def lr_floor(r: Recipe) -> None:
    """The cooldown ends at 0.15 of the peak instead of 0.10, which lifts all of it.

    Expected: a little more progress in the last steps. Source: modded-nanogpt PR #224.
    """
    r.schedule.learning_rate.floor = 0.15


@recipe("speedrun/short_documents", parent=lr_floor)
def short_documents(r: Recipe) -> None:
    """Documents are cut off after 896 tokens in the first stage; the loader is told so with every step that it cuts.

    Expected: 0.2 s less attention; more documents, and more of the shards used up. In the recorded runs step 0 still had
    2,048, because a generator cannot be told before its first item; here it has 896 as the rest of its stage.
    Source: modded-nanogpt PR #224.
    """
    assert r.schedule.stages is not None
    r.schedule.stages.stages[0].seq_len = 896


@recipe("speedrun/station", parent=short_documents)
def station(r: Recipe) -> None:
    """Layers with a short window look back 2 blocks instead of 5 in the third stage.

    Published: loss 3.2781 in 93.26 s, mean of 15 runs on three machines; 0.5 s of the third stage saved at 0.003 of loss. The
    40 steps of the extension are those of record 67. Source: modded-nanogpt PR #224 as submitted.
    """
    assert r.schedule.stages is not None
    r.schedule.stages.stages[2].short_window = 2


@recipe("speedrun/station_clamp", parent=station)
def station_clamp(r: Recipe) -> None:
    """The old cooldown to 0.10, cut off from below at 0.15: only the last 65 steps differ from record 67.

    Published: the more robust of the two, 0.46 s slower to the target. Source: modded-nanogpt PR #224, evaluation 262.
    """
    r.schedule.learning_rate = ClampedCooldown(fraction=0.55, floor=0.10, clamp=0.15)


@recipe("speedrun/extension5", parent=record67)
def extension5(r: Recipe) -> None:
    """An extension of 5 steps instead of 40: the first point of the station's own table.

    Published: 3.2779 by the station's clock in 93.76 s, mean of three. Source: modded-nanogpt PR #224, evaluation 18.
    """
    assert r.schedule.stages is not None
    r.schedule.stages.extension_steps = 5
    r.budget.train_steps = 1520


@recipe("speedrun/record70", parent=record67)
def record70(r: Recipe) -> None:
    """Value embeddings in layers 1 and 2 instead of 0 and 1, drawn at random, their gates reading the table too; 8 steps fewer.

    Records 68 and 69 change kernels. Published: 1.521 min by the board. Source: modded-nanogpt PR #218, with #216 and #217.
    """
    r.model.value_embedding = SelfGatedValueTables(layers=TheseLayers(layers=(1, 2, 8, 9, 10)), init_std=0.01)
    r.budget.train_steps = 1547


@recipe("speedrun/record71", parent=record70)
def record71(r: Recipe) -> None:
    """Gradients of bigrams by the rows that a step touched: the same mathematics.

    Published: 1.516 min by the board, 0.3 s less on eight GPUs, which send each other a fifth. Here one GPU gains as well: no
    backward pass makes a gradient of the whole table. Source: modded-nanogpt PR #221.
    """
    assert isinstance(r.model.bigram, BigramTable)
    r.model.bigram = SparseBigramTable(buckets=r.model.bigram.buckets)


@recipe("speedrun/record72", parent=record71)
def record72(r: Recipe) -> None:
    """What was merged of the station recipe: the floor, the shorter documents as an attribute of the stage, 17 steps fewer.

    The shorter windows were left out. Published: 1.496 min by the board. Source: modded-nanogpt PR #224 as merged.
    """
    assert r.schedule.stages is not None
    r.schedule.learning_rate.floor = 0.15
    r.schedule.stages.stages[0].seq_len = 896
    r.budget.train_steps = 1530
