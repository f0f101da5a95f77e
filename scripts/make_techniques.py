"""Writes docs/techniques.md: one row for every recipe of the 16 MB game, computed from the recipes themselves.

python scripts/make_techniques.py            # rewrites the table
python scripts/make_techniques.py --check    # exit status 1 when it is out of date
"""

import argparse
import json
import re
import sys
from pathlib import Path

from underpar.core.recipe import RecipeEntry
from underpar.model.cost import ModelCost, model_cost
from underpar.recipes import Recipe, registry

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "techniques.md"
HEAD = """# Techniques of the 16 MB game

Made by `python scripts/make_techniques.py`; do not edit. Each row is a recipe, and what it changes against the one it is built
on: `underpar diff RECIPE` prints the settings. Parameters and FLOPs (one token in training, rows of the recipe's length, all
passes of recurrent layers) are exact differences. "Measured" is bits per byte before quantisation (packed) on the `golf-mini`
track, one seed each, from the JSON in `benchmarks/results/`; a dash is a run nobody has made yet.

| recipe | built on | technique | source | parameters | MFLOP a token | measured |
|---|---|---|---|---|---|---|
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
    if entry.parent is None:
        parameters, flops = f"{cost.params:,}", f"{cost.train_flops_per_token / 1e6:.1f}"
    else:
        before = cost_of(entry.parent)
        parameters = difference(cost.params - before.params, "{:+,}")
        flops = difference((cost.train_flops_per_token - before.train_flops_per_token) / 1e6, "{:+.1f}")
    parent = f"`{entry.parent.name}`" if entry.parent else ""
    return [f"`{entry.name}`", parent, technique, source.strip().rstrip("."), parameters, flops, measured(entry.name)]


def cost_of(entry: RecipeEntry[Recipe]) -> ModelCost:
    config = registry.resolve(entry.name).config
    return model_cost(config.model, config.data.loader.seq_len)


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
