"""Fields of a config are typed: what is accepted, what is refused, and what the refusal says."""

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.config import (
    Config,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    apply_override,
    config,
    field,
    show,
)
from underpar.core.errors import ConfigError, suggest


class Shape(Config):
    """A choice with two siblings."""


@config
class Square(Shape):
    side: PositiveFloat = 1.0


@config
class Ring(Shape):
    outer: PositiveFloat = 2.0
    inner: PositiveFloat = 1.0

    def check(self) -> None:
        if self.inner >= self.outer:
            raise ConfigError(f"inner = {self.inner:g} must be below outer = {self.outer:g}")


@config
class Workshop(Config):
    workers: PositiveInt = 3
    spare: NonNegativeInt = 0
    speed: PositiveFloat = 1.5
    share: Fraction = 0.5
    angle: Annotated[float, Range(at_least=-90, at_most=90)] = 0.0
    mode: Literal["dry-run", "wet"] = "wet"
    name: str = "north"
    is_open: bool = True
    limit: PositiveInt | None = None
    sizes: tuple[PositiveInt, ...] = (1, 2)
    shape: Shape = field(default_factory=Square)
    shelf: tuple[Shape, ...] = ()
    optional_shape: Shape | None = None


def with_override(text: str) -> Workshop:
    made = Workshop()
    apply_override(made, text)
    return made.frozen()


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("workers=7", "workers", 7),
        ("workers=524_288", "workers", 524_288),
        ("speed=2", "speed", 2.0),
        ("speed=1e-3", "speed", 1e-3),
        ("angle=-90", "angle", -90.0),
        ("share=1", "share", 1.0),
        ("mode=dry-run", "mode", "dry-run"),
        ("mode='wet'", "mode", "wet"),
        ("name=3", "name", "3"),
        ("name=true", "name", "true"),
        ("name=a b=c", "name", "a b=c"),
        ("is_open=false", "is_open", False),
        ("limit=5", "limit", 5),
        ("limit=None", "limit", None),
        ("limit=none", "limit", None),
        ("sizes=(3, 4, 5)", "sizes", (3, 4, 5)),
        ("sizes=[6]", "sizes", (6,)),
        ("sizes=()", "sizes", ()),
        ("shape=Ring(outer=3, inner=0.5)", "shape", Ring(outer=3.0, inner=0.5)),
        ("shape=Ring", "shape", Ring()),
        ("shape.side=4", "shape", Square(side=4.0)),
        ("shelf=(Ring(), Square(side=2))", "shelf", (Ring(), Square(side=2.0))),
        ("optional_shape=Square", "optional_shape", Square()),
        (" workers = 9 ", "workers", 9),
    ],
)
def test_override_is_typed_by_its_field(text: str, path: str, value: object) -> None:
    found = getattr(with_override(text), path)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wrokers=3", "did you mean 'workers'?"),
        ("shape.sied=3", "did you mean 'side'?"),
        ("shape=Rign()", "did you mean 'Ring'?"),
        ("shape=Ring(outr=3)", "did you mean 'outer'?"),
        ("shape=Ring(3)", "expected Ring | Square"),
        ("shape=Workshop()", "shape = Workshop: expected Ring | Square"),
        ("shape=3", "shape = 3 (int): expected Ring | Square"),
        ("shelf=Ring()", "expected tuple of Ring | Square"),
        ("workers=2.5", "workers = 2.5 (float): expected int >= 1"),
        ("workers=True", "workers = True (bool): expected int >= 1"),
        ("workers=many", "workers = 'many' (str): expected int >= 1"),
        ("workers=0", "workers = 0 is out of range: must be >= 1"),
        ("spare=-1", "must be >= 0"),
        ("speed=0", "speed = 0 is out of range: must be > 0"),
        ("speed=True", "expected float > 0"),
        ("share=1.01", "must be >= 0 and <= 1"),
        ("angle=90.5", "must be >= -90 and <= 90"),
        ("mode=dry-rnu", "did you mean 'dry-run'?"),
        ("limit=0", "limit = 0 is out of range"),
        ("limit=x", "expected int >= 1 or None"),
        ("sizes=(1, 0)", "sizes[1] = 0 is out of range"),
        ("sizes=3", "expected tuple of int"),
        ("is_open=1", "expected bool"),
        ("workers.deep=3", "workers is 3, which has no field 'deep'"),
        ("shape.side.deep=3", "shape.side is 1, which has no field 'deep'"),
        ("workers", "not an override; write path.to.field=value"),
        ("=3", "not an override"),
        ("workers=__import__('os').getcwd()", "expected int >= 1"),
        ("workers=(lambda: 3)()", "expected int >= 1"),
    ],
)
def test_bad_override_is_one_line_that_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as problem:
        with_override(text)
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("value", ["1e999", "-1e999"])
def test_infinite_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"out of range|finite"):
        with_override(f"speed={value}")
    with pytest.raises(ConfigError, match=r"out of range|finite"):
        with_override(f"angle={value}")


def test_not_a_number_is_refused() -> None:
    made = Workshop()
    made.speed = float("nan")
    with pytest.raises(ConfigError, match="speed"):
        made.frozen()


def test_integer_too_large_for_a_float_is_an_error_and_no_crash() -> None:
    with pytest.raises(ConfigError, match="speed"):
        with_override(f"speed=1{'0' * 400}")


def test_misspelt_attribute_raises_at_once() -> None:
    made = Workshop()
    with pytest.raises(ConfigError, match=r"Workshop has no field 'wrokers'; did you mean 'workers'\?"):
        made.wrokers = 3
    with pytest.raises(TypeError):
        Workshop(3)  # type: ignore[call-arg]


def test_wrong_type_assigned_in_python_is_found_when_frozen() -> None:
    made = Workshop()
    made.shape.side = "wide"
    with pytest.raises(ConfigError, match=r"shape\.side = 'wide' \(str\): expected float > 0"):
        made.frozen()


def test_check_between_fields_names_its_path() -> None:
    made = Workshop(shelf=(Ring(), Ring(outer=1.0, inner=2.0)))
    with pytest.raises(ConfigError, match=r"shelf\[1\]: inner = 2 must be below outer = 1"):
        made.frozen()


def test_frozen_is_deep_and_leaves_the_original_free() -> None:
    made = Workshop(shelf=(Ring(),))
    fixed = made.frozen()
    for node, name in ((fixed, "workers"), (fixed.shape, "side"), (fixed.shelf[0], "outer")):
        with pytest.raises(ConfigError, match="frozen"):
            setattr(node, name, 1)
    made.workers = 4
    made.shape = Ring()
    assert (fixed.workers, fixed.shape) == (3, Square())


def test_defaults_are_not_shared_between_instances() -> None:
    first, second = Workshop(), Workshop()
    first.shape.side = 9.0
    assert second.shape == Square(side=1.0)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_fraction_is_accepted_exactly_between_0_and_1(value: float) -> None:
    made = Workshop(share=value)
    if 0.0 <= value <= 1.0:
        assert made.frozen().share == value
    else:
        with pytest.raises(ConfigError, match="share"):
            made.frozen()


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)))
def test_any_value_is_taken_or_refused_with_the_field_named(value: object) -> None:
    made = Workshop()
    made.workers = value  # type: ignore[assignment]
    if type(value) is int and value >= 1:
        assert made.frozen().workers == value
    else:
        with pytest.raises(ConfigError, match="workers"):
            made.frozen()


@given(st.text(max_size=60))
def test_no_override_text_does_anything_but_set_or_raise(text: str) -> None:
    made = Workshop()
    try:
        apply_override(made, f"shape={text}")
    except ConfigError:
        assert made.shape == Square()
    else:
        assert isinstance(made.shape, Shape)


def test_str_shows_only_what_differs() -> None:
    assert str(Ring()) == "Ring"
    assert str(Ring(inner=0.25)) == "Ring(inner=0.25)"
    assert show((1,)) == "(1,)"
    assert show((Ring(), 0.1)) == "(Ring, 0.1)"


def test_suggestion_is_the_nearest_or_the_list() -> None:
    assert suggest("learnig_rate", ["learning_rate", "momentum"]) == "did you mean 'learning_rate'?"
    assert suggest("zzz", ["b", "a"]) == "valid: a, b"
    assert suggest("zzz", []) == "nothing is valid here"


def test_two_modules_cannot_register_one_name() -> None:
    impostor = type("Square", (Shape,), {"__module__": "elsewhere", "__annotations__": {"side": float}, "side": 1.0})
    with pytest.raises(TypeError, match="two config classes are called Square"):
        config(impostor)


@config
class Inner(Config):
    lr: float = 0.1


@config
class TwoInners(Config):
    first: Inner = field(default_factory=Inner)
    second: Inner = field(default_factory=Inner)


def test_one_config_in_two_places_is_refused() -> None:
    """A track that scales every learning rate once would scale a shared one twice."""
    shared = Inner(lr=0.2)
    with pytest.raises(ConfigError, match="second and first are one object"):
        TwoInners(first=shared, second=shared).frozen()
    assert TwoInners(first=Inner(lr=0.2), second=Inner(lr=0.2)).frozen().second.lr == 0.2
