"""Imports point one way. When this table changes, the picture of the house has changed: say why in docs/decisions.md."""

import ast
from pathlib import Path

import pytest

import underpar

SOURCE = Path(underpar.__file__).parent

EVERY_LAYER = "core data kernels nn optim compress model train evaluate"

ALLOWED = {
    "core": "",
    "stats": "core",
    "records": "core stats",
    "data": "core",
    "kernels": "core",
    "compress": "core",
    "nn": "core data.context kernels",
    "optim": "core kernels nn.module nn.rows",
    "model": "core data.context nn",
    "train": "core data model optim",
    "evaluate": "core data compress.container model nn.adapters",
    "referee": "core stats data compress.container compress.source model evaluate",
    "recipes": EVERY_LAYER,
    "flatten": "core",
    "lab": f"{EVERY_LAYER} recipes stats records referee flatten",
    "cli": f"{EVERY_LAYER} recipes stats records referee flatten lab",
}
"""Room -> what its modules may import besides the room itself: a whole room, or single modules of one."""

LIGHT = ("core", "stats", "records")


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports from underpar, at any depth, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {inner for node in ast.walk(tree) if _is_type_checking(node) for inner in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports inside the package are absolute"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def test_every_room_is_in_the_picture() -> None:
    assert {path.relative_to(SOURCE).parts[0] for path in modules()} == ALLOWED.keys()


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_one_way(room: str) -> None:
    allowed = [f"underpar.{name}" for name in (room, *ALLOWED[room].split())]
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in modules()
        if path.relative_to(SOURCE).parts[0] == room
        for name in sorted(imported(path))
        if name.startswith("underpar.") and not any(name == known or name.startswith(f"{known}.") for known in allowed)
    ]
    assert not wrong


def test_the_picture_has_no_cycle() -> None:
    done: set[str] = set()
    waiting = {room: {name.split(".")[0] for name in names.split()} for room, names in ALLOWED.items()}
    while waiting:
        free = {room for room, needs in waiting.items() if needs <= done}
        assert free, f"these rooms need each other: {sorted(waiting)}"
        done |= free
        waiting = {room: needs for room, needs in waiting.items() if room not in free}


def test_light_rooms_touch_torch_only_inside_functions() -> None:
    for path in modules():
        if path.relative_to(SOURCE).parts[0] in LIGHT:
            top = ast.parse(path.read_text(encoding="utf-8")).body
            names = [a.name for node in top if isinstance(node, ast.Import) for a in node.names]
            names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
            assert not [name for name in names if name.split(".")[0] == "torch"], path


def test_no_module_unpickles() -> None:
    for path in modules():
        names = imported(path)
        assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, path
        assert "torch.load" not in path.read_text(encoding="utf-8"), path
