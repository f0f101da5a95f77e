"""Configs travel as JSON: round trips, hostile input, fingerprints and differences."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import underpar.recipes  # noqa: F401  (registers every config of the product)
from underpar.compress.quantise import Quantiser
from underpar.core.config import Config, PositiveInt, choices, config, diff, fingerprint, from_dict, to_dict
from underpar.core.errors import ConfigError
from underpar.model.gpt import GPTConfig
from underpar.model.plan import Topology
from underpar.recipes import Recipe, registry

PRODUCT = sorted(name for name, cls in choices(Config).items() if cls.__module__.startswith("underpar."))


@config
class Beads(Config):
    colours: tuple[str, ...] = ()
    length: PositiveInt = 1


def through_json(node: Config) -> object:
    return json.loads(json.dumps(to_dict(node), allow_nan=False))


@pytest.mark.parametrize("name", PRODUCT)
def test_every_config_of_the_product_survives_json(name: str) -> None:
    cls = choices(Config)[name]
    try:
        made = cls()
    except TypeError:
        pytest.skip("has fields without a default; covered inside a recipe")
    try:
        made = made.frozen()
    except ConfigError:
        pytest.skip("its default needs a value; covered inside a recipe")
    assert from_dict(through_json(made), cls) == made


@pytest.mark.parametrize("name", sorted(registry.recipes))
def test_every_recipe_survives_json_with_its_fingerprint(name: str) -> None:
    resolved = registry.resolve(name)
    again = from_dict(through_json(resolved.config), Recipe)
    assert again == resolved.config
    assert fingerprint(again) == resolved.fingerprint


# ------------------------------------------------------------------------------------------------- hostile input


def golden(**changes: object) -> dict[str, object]:
    return to_dict(GPTConfig().frozen()) | changes


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "GPTConfig"),
        (3, "GPTConfig"),
        ([], "GPTConfig"),
        ({}, "unknown type None"),
        ({"type": ["GPTConfig"]}, "unknown type"),
        ({"type": "os.system"}, "unknown type 'os.system'"),
        ({"type": "Int8PerRow"}, "unknown type 'Int8PerRow'"),
        ({"type": "Config"}, "unknown type 'Config'"),
        (golden(num_layer=3), "did you mean 'num_layers'?"),
        (golden(__class__=3), "has no field '__class__'"),
        (golden(_frozen=False), "has no field '_frozen'"),
        (golden(check=1), "has no field 'check'"),
        (golden(topology={"type": "ReluSquared"}), "unknown type 'ReluSquared'"),
        (golden(topology="UNet"), "topology"),
        (golden(mlp=[]), "mlp"),
        (golden(mlp={"type": "MLP", "activation": {"type": "MLP"}}), "unknown type 'MLP'"),
        (golden(num_layers="9"), "num_layers"),
        (golden(num_layers=True), "num_layers"),
        (golden(num_layers=-1), "num_layers"),
        (golden(num_layers=10**30), "num_layers"),
        (golden(num_layers=10**9), "num_layers"),
        (golden(model_dim=10**12), "model_dim"),
        (golden(vocab_size=65_537), "vocab_size"),
        (golden(mlp={"type": "MLP", "ratio": 10**400}), "ratio"),
        (golden(mlp={"type": "MLP", "ratio": 1e300}), "ratio"),
        (golden(mlp={"type": "MLP", "ratio": float("nan")}), "ratio"),
        (golden(mlp={"type": "MLP", "ratio": float("inf")}), "ratio"),
    ],
)
def test_hostile_json_gives_one_clear_error(data: object, said: str) -> None:
    with pytest.raises(ConfigError) as problem:
        from_dict(data, GPTConfig)
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_class_outside_the_expected_base_is_never_built() -> None:
    assert from_dict({"type": "UNet"}, Topology) is not None
    with pytest.raises(ConfigError, match="unknown type 'UNet'"):
        from_dict({"type": "UNet"}, Quantiser)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    deep: object = 0
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(ConfigError):
        from_dict(golden(num_layers=deep), GPTConfig)
    for _ in range(5_000):
        deep = {"type": "MLP", "activation": deep}
    with pytest.raises(ConfigError):
        from_dict(golden(mlp=deep), GPTConfig)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "vocab_size", "num_layers", "topology", "mlp", "activation", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["topology", "mlp", "vocab_size", "attention", "head", "embedding"]))
def test_random_json_is_built_or_refused_never_more(data: object, where: str) -> None:
    for candidate in (data, golden(**{where: data})):
        try:
            made = from_dict(candidate, GPTConfig)
        except ConfigError:
            continue
        assert isinstance(made, GPTConfig)


# ------------------------------------------------------------------------------------------------- fingerprints


def test_fingerprint_is_the_same_in_another_process_and_environment() -> None:
    code = "from underpar.recipes import registry; print(*(registry.resolve(n).fingerprint for n in sorted(registry.recipes)))"
    here = [registry.resolve(name).fingerprint for name in sorted(registry.recipes)]
    environment = os.environ | {
        "PYTHONHASHSEED": "77",
        "SEED": "9",
        "TRAIN_SEQ_LEN": "64",
        "LANG": "C",
        "TZ": "Asia/Tokyo",
    }
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == here
    assert len(set(here)) == len(here)


@pytest.mark.parametrize(
    "override", ["seed=1338", "model.mlp.ratio=2.5", "model.topology=Straight", "budget.train_steps=1"]
)
def test_every_setting_is_in_the_fingerprint(override: str) -> None:
    plain = registry.resolve("golf/baseline")
    changed = registry.resolve("golf/baseline", overrides=[override])
    assert changed.fingerprint != plain.fingerprint
    assert len(diff(plain.config, changed.config)) == 1


def test_an_override_with_the_value_it_had_changes_nothing() -> None:
    plain = registry.resolve("golf/baseline")
    assert registry.resolve("golf/baseline", overrides=["model.num_layers=9"]).fingerprint == plain.fingerprint


# ------------------------------------------------------------------------------------------------- differences


def test_tuples_are_compared_as_sequences() -> None:
    changes = diff(Beads(colours=("red", "green", "blue")), Beads(colours=("red", "blue", "grey")))
    assert [str(c) for c in changes] == ["colours: - 'green'", "colours: + 'grey'"]


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_sequence_diff_accounts_for_every_element(old: list[str], new: list[str]) -> None:
    changes = diff(Beads(colours=tuple(old)), Beads(colours=tuple(new)))
    removed = [c.old for c in changes if c.new is None]
    added = [c.new for c in changes if c.old is None]
    assert len(removed) + len(added) == len(changes)
    assert sorted(map(repr, new)) == sorted(
        [v for v in map(repr, old) if not _take(removed, v)] + [str(v) for v in added]
    )
    assert (not changes) == (old == new)


def _take(pool: list[str | None], value: str) -> bool:
    if value in pool:
        pool.remove(value)
        return True
    return False


def test_diff_of_another_class_is_one_change() -> None:
    old, new = GPTConfig(), GPTConfig(num_layers=10)
    new.topology = from_dict({"type": "Straight"}, Topology)
    assert {str(c) for c in diff(old, new)} == {"num_layers: 9 -> 10", "topology: UNet -> Straight"}
    assert diff(old, old) == []
