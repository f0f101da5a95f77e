"""The speedrun recipes against the published tables: parameters, stages, schedules, and the differences between neighbours."""

import pytest

from underpar.core.errors import ConfigError
from underpar.core.phase import StepShape, WindowSizes
from underpar.model.cost import on_meta
from underpar.nn.module import parameter_labels
from underpar.optim.schedules import Progress, Settings
from underpar.optim.sharded_adam import ShardedAdam
from underpar.optim.sided_normuon import SidedNorMuon
from underpar.optim.stages import Stage, StageTable
from underpar.recipes import registry
from underpar.recipes.base import Recipe


def config(name: str, *overrides: str) -> Recipe:
    return registry.resolve(name, overrides=overrides).config


def at(recipe: Recipe, step: int) -> Settings:
    return recipe.schedule.at(Progress(step, 0, 0.0), recipe.budget)


def test_record67_has_the_published_parameters() -> None:
    """3.1 of the record, less the padding of its banks and two scalars of the layer without attention."""
    model = on_meta(config("speedrun/record67").model)
    counts: dict[str, int] = {}
    for (name, param), label in zip(model.named_parameters(), parameter_labels(model).values(), strict=True):
        assert parameter_labels(model)[name] == label
        counts[label] = counts.get(label, 0) + param.numel()
    assert counts == {
        "attention": 40 * 768**2, "mlp_up": 11 * 3072 * 768, "mlp_down": 11 * 3072 * 768,
        "embedding": 50_304 * 768, "head": 50_304 * 768,
        "value_embedding": 5 * 50_304 * 768, "bigram_embedding": 251_520 * 768,
        "attention_gate": 10 * 6 * 12, "value_gate": 5 * 6 * 12, "smear_gate": 12, "skip_gate": 12,
        "input_mix": 11, "gain": 11 + 20 + 11 + 3,
    }  # fmt: skip
    assert model.num_parameters() == 539_100_296


def test_gains_are_float32_and_all_else_is_bfloat16() -> None:
    model = on_meta(config("speedrun/record67").model)
    labels = parameter_labels(model)
    wide = {labels[name] for name, param in model.named_parameters() if str(param.dtype) == "torch.float32"}
    assert wide == {"gain", "input_mix"}


def test_scalars_start_where_the_record_has_them() -> None:
    model = registry.resolve("speedrun/record67", track="speedrun-toy").config.model.build()
    values = {name: float(p.detach()) for name, p in model.named_parameters() if p.ndim == 0}
    starts = {"residual.keep": 1.1, "from_input": 0.0, "from_bigram": 0.1}
    starts |= {"weight_gains.inputs": 0.5, "weight_gains.output": 1.0, "smear.strength": 0.0, "backout.gain": 0.5}
    for ending, start in starts.items():
        found = {round(value, 6) for name, value in values.items() if name.endswith(ending)}
        assert found == {start}, ending
    assert model.skips is not None
    assert model.skips.strength.tolist() == [-1.5]
    assert len(values) == 11 * 3 + 10 * 2 + 2


# ------------------------------------------------------------------------------------------------- optimisers


ADAM = {
    "gain": (5, 0.9, 0.99, 0), "value_embedding": (75, 0.75, 0.95, 5), "bigram_embedding": (75, 0.75, 0.95, 5),
    "smear_gate": (0.01, 0.9, 0.99, 0), "skip_gate": (0.05, 0.9, 0.99, 0), "gate": (1, 0.9, 0.99, 1),
    "input_mix": (5, 0.65, 0.95, 0), "head": (1, 0.5, 0.95, 150), "embedding": (1, 0.5, 0.95, 150),
}  # fmt: skip
"""Factor of 0.008, betas, factor of the decay of 0.005: what every label of the record has."""


def test_adam_of_every_label_is_the_published_table() -> None:
    chosen = config("speedrun/record67").optim.chosen()
    found = {label: node for label, node in chosen.items() if isinstance(node, ShardedAdam)}
    assert found.keys() == ADAM.keys()
    for label, (factor, beta1, beta2, decay) in ADAM.items():
        node = found[label]
        assert (node.beta1, node.beta2, node.eps, node.every) == (beta1, beta2, 1e-10, 2), label
        assert node.lr == pytest.approx(0.008 * factor)
        assert node.lr * node.weight_decay == pytest.approx((0.008 * factor) ** 2 * 0.005 * decay), label


def test_what_a_step_of_normuon_takes_and_decays() -> None:
    """As published: the rate has a factor for the shape and 2 more on the way back from the hidden layer, the decay neither."""
    chosen = config("speedrun/record67").optim.chosen()
    shapes = {"matrix": ((768, 768), 1), "mlp_down": ((768, 3072), 4)}
    for label, ((rows, cols), factor) in shapes.items():
        node = chosen[label]
        assert isinstance(node, SidedNorMuon)
        assert node.lr * max(1.0, rows / cols) ** 0.5 == pytest.approx(0.023 * factor)
        assert (node.weight_decay, node.beta2) == (pytest.approx(1.2 * 0.023), 0.95)
    assert chosen["matrix"].lr * (3072 / 768) ** 0.5 == pytest.approx(0.023 * 2)  # on the way there


# ------------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("first", "last", "shape", "blocks", "targets"),
    [
        (0, 504, (131_072, 2048), (1, 3), 3),
        (505, 1009, (262_144, 2048), (3, 7), 2),
        (1010, 1514, (393_216, 2048), (5, 11), 1),
        (1515, 1554, (393_216, 2048), (6, 13), 1),
    ],
)
def test_the_stage_table_of_record67(first: int, last: int, shape: tuple, blocks: tuple, targets: int) -> None:
    recipe = config("speedrun/record67")
    for step in (first, (first + last) // 2, last):
        found = at(recipe, step)
        assert found.shape == StepShape(*shape)
        assert found.phase.windows == WindowSizes(128 * blocks[0], 128 * blocks[1])
        assert len(found.target_weights or ()) == targets


def test_record67_trains_on_the_published_number_of_tokens() -> None:
    recipe = config("speedrun/record67")
    shapes = [at(recipe, step).shape for step in range(1555)]
    assert sum(shape.batch_tokens for shape in shapes if shape) == 505 * (131_072 + 262_144 + 393_216) + 40 * 393_216
    assert recipe.budget.train_steps == 1555


def test_later_tokens_leave_the_loss_linearly() -> None:
    recipe = config("speedrun/record67")
    assert at(recipe, 0).target_weights == (1.0, 0.5, 0.25)
    assert at(recipe, 252).target_weights == pytest.approx((1.0, 0.5, 0.25 * (1 - 252 / 505)))
    assert at(recipe, 505).target_weights == (1.0, 0.5)
    assert at(recipe, 1009).target_weights == pytest.approx((1.0, 0.5 * (1 - 504 / 505)))
    assert at(recipe, 1010).target_weights == at(recipe, 1554).target_weights == (1.0,)


@pytest.mark.parametrize(
    ("scheduled", "extension", "starts"),
    [(1515, 40, [505, 1010]), (1507, 40, [502, 1005]), (1490, 40, [497, 993]), (1270, 15, [423, 847])],
)
def test_boundaries_of_the_published_runs(scheduled: int, extension: int, starts: list[int]) -> None:
    recipe = config("speedrun/record67", f"budget.train_steps={scheduled + extension}")
    table = recipe.schedule.stages
    assert table is not None
    assert table.boundaries(scheduled) == [0, *starts, scheduled]


@pytest.mark.parametrize(
    ("steps", "extension", "fraction", "cooldown", "split"),
    [(1555, 40, 0.55, 681, 1011), (1547, 40, 0.55, 678, 1005), (1530, 40, 0.55, 670, 993), (1285, 15, 0.60, 508, 847)],
)
def test_cooldown_and_the_parting_of_the_tables_begin_where_published(
    steps: int, extension: int, fraction: float, cooldown: int, split: int
) -> None:
    recipe = config(
        "speedrun/record67",
        f"schedule.stages.extension_steps={extension}",
        f"budget.train_steps={steps}",
        f"schedule.learning_rate.fraction={fraction}",
    )
    table = recipe.schedule.stages
    assert table is not None
    peaks = [table.at(step, 0.0, recipe.budget).stage.lr_scale for step in range(steps)]
    rates = [at(recipe, step).lr_scale for step in range(steps)]
    assert (
        next(s for s in range(steps) if rates[s] != peaks[s]) == cooldown + 1
    )  # nothing of it is done at its first step
    head = recipe.optim.head
    assert head is not None
    assert next(s for s in range(steps) if not at(recipe, s).tied and head.is_due(at(recipe, s))) == split


def test_embedding_and_head_are_tied_through_the_second_stage() -> None:
    recipe = config("speedrun/record67")
    assert [at(recipe, step).tied for step in (0, 1009, 1010, 1554)] == [True, True, False, False]


# ------------------------------------------------------------------------------------------------- learning rates


STEPS = (0, 680, 800, 1009, 1010, 1200, 1400, 1480, 1490, 1514, 1515, 1554)
LR = {
    "speedrun/record67": (1.0, 1.52, 1.3174, 0.9615, 1.0870, 0.7156, 0.3248, 0.1684, 0.1489, 0.1020, 0.1, 0.1),
    "speedrun/station": (1.0, 1.52, 1.3245, 0.9812, 1.1067, 0.7468, 0.3679, 0.2163, 0.1974, 0.1519, 0.15, 0.15),
    "speedrun/station_clamp": (1.0, 1.52, 1.3174, 0.9615, 1.0870, 0.7156, 0.3248, 0.1684, 0.15, 0.15, 0.15, 0.15),
}  # fmt: skip


@pytest.mark.parametrize("name", LR)
def test_the_learning_rate_of_the_published_table(name: str) -> None:
    recipe = config(name)
    assert [round(at(recipe, step).lr_scale, 4) for step in STEPS] == pytest.approx(LR[name], abs=6e-5)


def test_the_clamp_alters_65_steps_and_the_interpolation_the_whole_cooldown() -> None:
    base, floor, clamp = (config(n) for n in ("speedrun/record67", "speedrun/station", "speedrun/station_clamp"))
    rates = [[at(recipe, step).lr_scale for step in range(1555)] for recipe in (base, floor, clamp)]
    changed = [[step for step in range(1555) if found[step] != rates[0][step]] for found in rates[1:]]
    assert changed[0] == list(range(682, 1555))  # at 681 the cooldown begins, with nothing of it done
    assert changed[1] == list(range(1490, 1555))


def test_momentum_rises_over_300_steps_and_falls_over_the_last_50() -> None:
    recipe = config("speedrun/record67")
    found = [at(recipe, step).momentum for step in (0, 150, 300, 1505, 1530)]
    assert found == pytest.approx([0.85, 0.90, 0.95, 0.95, 0.90])


def test_a_cooldown_of_nothing_divides_by_nothing() -> None:
    recipe = config("speedrun/record67", "schedule.learning_rate.fraction=0.0")
    assert at(recipe, 1514).lr_scale == pytest.approx(1.73)
    assert at(recipe, 1515).lr_scale == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------- recipes as differences


def changes(old: str, new: str) -> list[str]:
    return [str(change) for change in registry.changes(old, new)]


def test_the_station_recipe_is_the_published_table_and_nothing_else() -> None:
    assert changes("speedrun/record67", "speedrun/station") == [
        "schedule.learning_rate.floor: 0.1 -> 0.15",
        "schedule.stages.stages[0].seq_len: 2048 -> 896",
        "schedule.stages.stages[2].short_window: 5 -> 2",
    ]


def test_neighbours_differ_in_one_thing() -> None:
    assert changes("speedrun/record67", "speedrun/lr_floor") == ["schedule.learning_rate.floor: 0.1 -> 0.15"]
    assert changes("speedrun/lr_floor", "speedrun/short_documents") == [
        "schedule.stages.stages[0].seq_len: 2048 -> 896"
    ]
    assert changes("speedrun/short_documents", "speedrun/station") == ["schedule.stages.stages[2].short_window: 5 -> 2"]
    assert changes("speedrun/station", "speedrun/station_clamp") == [
        "schedule.learning_rate: Cooldown(floor=0.15) -> ClampedCooldown"
    ]


def test_the_records_between_are_steps_of_their_own() -> None:
    assert [line.split(":")[0] for line in changes("speedrun/record67", "speedrun/record70")] == [
        "budget.train_steps",
        "model.value_embedding",
    ]
    assert changes("speedrun/record70", "speedrun/record71") == ["model.bigram: BigramTable -> SparseBigramTable"]


def test_what_was_merged_is_the_floor_the_documents_and_fewer_steps() -> None:
    assert changes("speedrun/record71", "speedrun/record72") == [
        "budget.train_steps: 1547 -> 1530",
        "schedule.learning_rate.floor: 0.1 -> 0.15",
        "schedule.stages.stages[0].seq_len: 2048 -> 896",
    ]
    table = config("speedrun/record72").schedule.stages
    assert table is not None
    assert table.boundaries(1490) == [0, 497, 993, 1490]


def test_track_3_has_the_plain_model() -> None:
    """Weights, biases and gains of 12 layers, two tables, a bias of the head and the two outer norms."""
    layer = 4 * (768**2 + 768) + 2 * 3072 * 768 + 3072 + 768 + 2 * 768
    model = on_meta(config("speedrun/track3-muon").model)
    assert model.num_parameters() == 12 * layer + 2 * 50_304 * 768 + 50_304 + 2 * 768


def test_track_3_changes_only_the_optimiser() -> None:
    """Its rule: data, batch and architecture stay."""
    rooms = {line.split(".")[0].split(":")[0] for line in changes("speedrun/track3-muon", "speedrun/track3-adam")}
    assert rooms == {"budget", "optim", "schedule"}


def test_track_3_cools_down_over_the_last_70_percent() -> None:
    recipe = config("speedrun/track3-muon")
    found = [at(recipe, step).lr_scale for step in (0, 975, 2275, 3249)]
    assert found == pytest.approx([1.0, 1.0, 0.3 / 0.7, 1 / 3250 / 0.7])
    assert {at(recipe, step).momentum for step in (0, 10, 3249)} == {0.95}
    adam = config("speedrun/track3-adam")
    assert [at(adam, step).lr_scale for step in (0, 124, 249, 300)] == pytest.approx([1 / 250, 0.5, 1.0, 1.0])


# ------------------------------------------------------------------------------------------------- bad tables


def table(**fields: object) -> StageTable:
    return StageTable(**fields).frozen()  # type: ignore[arg-type]


def test_a_table_with_a_gap_says_how_large_it_is() -> None:
    with pytest.raises(ConfigError, match=r"leave a gap of 0\.2 of the run"):
        table(stages=(Stage(share=0.5), Stage(share=0.3)))
    with pytest.raises(ConfigError, match=r"overlap by 0\.25"):
        table(stages=(Stage(share=0.75), Stage(share=0.5)))


def test_a_window_longer_than_the_sequence_is_refused() -> None:
    with pytest.raises(ConfigError, match="1664 tokens, over seq_len = 896"):
        table(stages=(Stage(seq_len=896, long_window=13),))


def test_a_rope_that_stretches_for_other_windows_than_training_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stretches for long windows of \(384, 896\)"):
        config("speedrun/record67", "model.attention.rope.windows=(384, 896)")


def test_windows_that_no_layer_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing would obey them"):
        config("speedrun/record67", "model.attention.windows=None", "model.attention.rope=EndpointRope")


def test_an_extension_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing beside an extension of 40 steps"):
        config("speedrun/record67", "budget.train_steps=40")


def test_tables_are_not_merged_again() -> None:
    with pytest.raises(ConfigError, match="never merged again"):
        table(stages=(Stage(share=0.5), Stage(share=0.5, tied=True)))


def test_under_a_budget_of_seconds_stages_go_by_their_share() -> None:
    recipe = config("speedrun/record67", "budget.train_steps=None", "budget.train_seconds=90.0")
    shapes = [recipe.schedule.at(Progress(7, 0, seconds), recipe.budget).shape for seconds in (0.0, 29.9, 30.1, 89.0)]
    assert [shape.batch_tokens for shape in shapes if shape] == [131_072, 131_072, 262_144, 393_216]
