"""Recipes: a parent and a difference."""

import pytest

from underpar.core.config import Config, PositiveInt, config
from underpar.core.errors import ConfigError, suggest
from underpar.core.recipe import Registry


@config
class Soup(Config):
    water_litres: PositiveInt = 1
    carrots: PositiveInt = 2
    salt_grams: PositiveInt = 5


def make() -> Registry[Soup]:
    registry = Registry(Soup)

    @registry.recipe("plain")
    def plain(r: Soup) -> None:
        """Water and carrots."""
        r.carrots = 3

    @registry.recipe("thick", parent=plain)
    def thick(r: Soup) -> None:
        """More carrots.

        Source: grandmother.
        """
        r.carrots += 4

    @registry.recipe("salted/thick", parent=thick)
    def salted(r: Soup) -> None:
        """And salt."""
        r.salt_grams = 6

    @registry.track("large")
    def large(r: Soup) -> None:
        """For ten."""
        r.water_litres *= 10

    return registry


def test_bodies_apply_from_the_oldest_ancestor_down() -> None:
    resolved = make().resolve("salted/thick")
    assert resolved.lineage == ("plain", "thick", "salted/thick")
    assert resolved.config == Soup(water_litres=1, carrots=7, salt_grams=6)


def test_track_comes_after_the_recipe_and_overrides_last() -> None:
    resolved = make().resolve("thick", track="large", overrides=["water_litres=11", "carrots=1"])
    assert resolved.config == Soup(water_litres=11, carrots=1, salt_grams=5)
    assert (resolved.track, resolved.overrides) == ("large", ("water_litres=11", "carrots=1"))
    assert make().resolve("thick", track="large").config.water_litres == 10


def test_a_track_that_does_not_fit_is_named() -> None:
    registry = make()

    @registry.track("dry")
    def dry(r: Soup) -> None:
        """Without water."""
        r.water_litres = 0

    with pytest.raises(ConfigError, match=r"^thick on track dry: water_litres = 0 is out of range"):
        registry.resolve("thick", track="dry")


def test_an_unknown_name_lists_a_dozen_at_most() -> None:
    assert suggest("zzz", ["a", "b"]) == "valid: a, b"
    assert suggest("zzz", map(str, range(100, 115))).endswith("110, 111 and 3 more")


def test_resolving_twice_starts_afresh() -> None:
    registry = make()
    assert registry.resolve("thick").config == registry.resolve("thick").config


def test_resolved_config_is_frozen() -> None:
    with pytest.raises(ConfigError, match="frozen"):
        make().resolve("plain").config.carrots = 9


def test_changes_are_computed_from_the_configs() -> None:
    assert [str(c) for c in make().changes("plain", "salted/thick")] == ["carrots: 3 -> 7", "salt_grams: 5 -> 6"]


def test_documentation_is_the_docstring() -> None:
    entry = make().find("thick")
    assert entry.summary == "More carrots."
    assert entry.doc.endswith("Source: grandmother.")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: r.resolve("thikc"), "no recipe 'thikc'; did you mean 'thick'?"),
        (lambda r: r.resolve("thick", track="larg"), "no track 'larg'; did you mean 'large'?"),
        (lambda r: r.resolve("thick", overrides=["carots=3"]), "did you mean 'carrots'?"),
        (lambda r: r.resolve("thick", overrides=["carrots=0"]), "carrots = 0 is out of range"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(call, said: str) -> None:
    with pytest.raises(ConfigError) as problem:
        call(make())
    assert said in str(problem.value)


def test_two_recipes_cannot_share_a_name() -> None:
    registry = make()
    with pytest.raises(ConfigError, match="two entries are called 'thick'"):

        @registry.recipe("thick")
        def again(r: Soup) -> None:
            """A namesake."""


def test_a_recipe_without_docstring_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a docstring"):

        @make().recipe("silent")
        def silent(r: Soup) -> None:
            r.carrots = 1
