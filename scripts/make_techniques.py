"""Writes docs/techniques.md: one row for every recipe of the 16 MB game, computed from the recipes themselves.

python scripts/make_techniques.py            # rewrites the table
python scripts/make_techniques.py --check    # exit status 1 when it is out of date
"""

import argparse
import json
import re
import sys
from functools import cache
from pathlib import Path

from underpar.compress.quantise import PublishedInt8
from underpar.compress.solver import Waterfill
from underpar.core.recipe import RecipeEntry
from underpar.core.roles import Role
from underpar.model.cost import ModelCost, model_cost, on_meta
from underpar.nn.module import parameter_roles
from underpar.recipes import Recipe, registry

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "techniques.md"
HEAD = """# Techniques of the 16 MB game

Made by `python scripts/make_techniques.py`; do not edit. Each row is a recipe, and what it changes against the one it is built
on: `underpar diff RECIPE` prints the settings. Parameters and FLOPs (one token in training, rows of the recipe's length, all
passes of recurrent layers) are exact differences. Kilobytes are those of the codes at the recipe's widths, before entropy
coding; "full" fills whatever budget there is. "Measured" is bits per byte before quantisation (packed) on the `golf-mini`
track, one seed each, from the JSON in `benchmarks/results/`; a dash is a run nobody has made yet.

| recipe | built on | technique | source | parameters | kB | MFLOP a token | measured |
|---|---|---|---|---|---|---|---|
"""


def table() -> str:
    """The whole document."""
    golf = [entry for name, entry in registry.recipes.items() if name.startswith("golf/")]
    return HEAD + "".join(f"| {' | '.join(row(entry))} |\n" for entry in golf)


def row(entry: RecipeEntry[Recipe]) -> list[str]:
    """The cells of one recipe."""
    cost = cost_of(entry)
    text, _, source = " ".join(entry.doc.split()).partition("Source:")
    technique = re.split(r"(?<=[.:;])\s", text)[0].rstrip(".:; ")
    size = kilobytes(entry)
    if entry.parent is None:
        parameters, flops = f"{cost.params:,}", f"{cost.train_flops_per_token / 1e6:.1f}"
        stored = f"{size:,.0f}"
    else:
        before = cost_of(entry.parent)
        parameters = difference(cost.params - before.params, "{:+,}")
        stored = "full" if size is None else difference(size - (kilobytes(entry.parent) or 0.0), "{:+,.0f}")
        flops = difference((cost.train_flops_per_token - before.train_flops_per_token) / 1e6, "{:+.1f}")
    parent = f"`{entry.parent.name}`" if entry.parent else ""
    described = [f"`{entry.name}`", parent, technique, source.strip().rstrip(".")]
    return [*described, parameters, stored, flops, measured(entry.name)]


@cache
def cost_of(entry: RecipeEntry[Recipe]) -> ModelCost:
    config = registry.resolve(entry.name).config
    return model_cost(config.model, config.data.loader.seq_len)


@cache
def kilobytes(entry: RecipeEntry[Recipe]) -> float | None:
    """Of all codes at their widths, 16 bits where a tensor has none. None where the byte budget decides."""
    config = registry.resolve(entry.name).config
    if isinstance(config.pack.quantiser, Waterfill):
        return None
    model = on_meta(config.model)
    roles = parameter_roles(model)
    bits = 0
    for name, param in model.named_parameters():
        precision = config.pack.quantiser.precision_of(name, param, Role(roles[name]))
        bits += param.numel() * getattr(precision, "bits", 8 if isinstance(precision, PublishedInt8) else 16)
    return bits / 8e3


def difference(value: float, form: str) -> str:
    return form.format(value) if abs(value) >= 0.05 else "same"


def measured(name: str) -> str:
    """Bits per byte of the recipe's golf-mini run on one GPU, if its file is there."""
    path = ROOT / "benchmarks" / "results" / f"h200_golf_mini_{name.removeprefix('golf/')}.json"
    if not path.exists():
        return "-"
    run = json.loads(path.read_text())
    validation = run["train"].get("validation", {})
    before = validation.get("averaged", validation.get("raw", {})).get("bpb")
    packed = (run.get("score") or {}).get("bpb")
    return f"{f'{before:.4f}' if before else '-'} ({f'{packed:.4f}' if packed else '-'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the table is out of date")
    wanted = table()
    if parser.parse_args().check:
        sys.exit(TABLE.read_text() != wanted)
    TABLE.write_text(wanted)


if __name__ == "__main__":
    main()
