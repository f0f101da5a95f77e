"""The page: one self-contained HTML file of one run or of several seeds over each other."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from underpar.core.errors import RecordError
from underpar.core.whole import write_whole
from underpar.records import sections
from underpar.records.run import Run, load_runs

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser itself refuses to load anything from anywhere."""


def write_report(run_dirs: Sequence[Path], out_html: Path) -> Path:
    """Write the page of these runs and return its path. It loads nothing: style, script and drawings are inside.

    Sections whose files are missing name the command that makes them. Several runs must be of one recipe.

    Raises RecordError for folders that are no runs, a seed twice, runs of different recipes, or damaged files.
    """
    runs = load_runs(run_dirs)
    for run in runs[1:]:
        if run.name != runs[0].name:
            raise RecordError(
                f"{run.folder} is a run of {run.name}, {runs[0].folder} of {runs[0].name}; "
                "one page shows one recipe, use 'underpar compare' for two"
            )
    if len({run.seed for run in runs}) != len(runs):
        raise RecordError(f"two of the {len(runs)} runs have the same seed; show one of them")
    return write_whole(out_html, render(runs))


def render(runs: Sequence[Run]) -> str:
    """The text of the page."""
    first = runs[0]
    seeds = f"seed {first.seed}" if len(runs) == 1 else f"{len(runs)} seeds"
    where = " · ".join(str(p) for p in (first.config.get("track"), seeds) if p)
    body = (
        sections.compressors(runs),
        sections.seed_table(runs),
        sections.training(runs),
        sections.sizes(runs),
        sections.documents(runs),
        sections.recipe(runs),
        sections.verification(runs),
        sections.reproduction(runs),
        sections.environment(runs),
    )
    bpb = sections.mean_bpb(runs)
    title = f"{first.name} · {f'{bpb:.4f} bpb' if bpb is not None else seeds}"
    version = (first.environment or {}).get("underpar", "")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_asset("report.css")}</style></head>\n'
        f'<body><header><div class="top"><span>{escape(where)}</span>'
        '<button type="button" id="theme" aria-label="Colour theme">Theme</button></div>'
        f'<h1>{escape(first.name)}</h1><p class="summary">{escape(str(first.config.get("summary") or ""))}</p>'
        f"{sections.hero(runs)}</header>\n<main>\n{chr(10).join(part for part in body if part)}\n</main>\n"
        f"<footer><p>Written by underpar {escape(str(version))} from the files of the run; nothing is loaded from elsewhere."
        f"</p></footer>\n<script>{_asset('report.js')}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return (files("underpar.records") / "assets" / name).read_text(encoding="utf-8")
