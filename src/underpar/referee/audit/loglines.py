"""The lines of a published log that carry a fact, of both lines of the 16 MB game and of the speedrun.

A handler is found by the first four bytes of a line; a pattern then has to fit from the start of the line, so that a
training script that stands in front of many logs cannot be mistaken for what it prints.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

from underpar.referee.audit.facts import Block, Clock, Score, Size
from underpar.referee.audit.printed import Printed, printed

_F, _I = r"([0-9]+(?:\.[0-9]+)?)", r"([0-9]{1,15})"

_LABEL = re.compile(r"[\w .:+/\[\]%-]*")
_FIGURES = re.compile(r"val_loss\s*[:=]\s*([0-9.]+|nan|inf)(?:\s+val_bpb\s*[:=]\s*([0-9.]+|nan|inf))?(?=\s|$)")
_BPB_ONLY = re.compile(r"val_bpb\s*[:=]\s*([0-9.]+)(?=\s|$)")
_PERIODIC = re.compile(r"(?:step:)?(\d{1,9})/(\d{1,9})$")
_EVAL = re.compile(rf"(?:eval_time|elapsed)\s*[:=]\s*{_F}(ms|s)\b")
_TRAIN_TIME = re.compile(rf"train_time\s*[:=]\s*{_F}(ms|s|m)\b")
_PROGRESS = re.compile(rf"(?:step:)?{_I}/{_I}\b.*?\b(?:train_time|t):\s*{_F}(ms|s|m)\b")
_DIAGNOSTIC = re.compile(r"diagnostic|pre[-_ ]?quant|post[-_ ]ema|^raw\b|chunk|progress", re.IGNORECASE)

_PLAIN = string.ascii_letters + string.digits + "_: "
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0}


def score_line(text: str, line: int, where: str) -> Score | None:
    """The score that a line prints, or None. `where`: file and line."""
    start = text.find("val_loss")
    pattern = _FIGURES if start >= 0 else _BPB_ONLY
    start = start if start >= 0 else text.find("val_bpb")
    match = pattern.match(text, start) if start >= 0 else None
    if match is None or not _LABEL.fullmatch(text[:start]):
        return None
    loss = printed(match[1], where) if pattern is _FIGURES else None
    bpb = printed(match[2] or "", where) if pattern is _FIGURES else printed(match[1], where)
    if bpb is None and loss is None:
        return None
    label, rest = " ".join(text[:start].split()).strip(" :"), text[match.end() :]
    step = _PERIODIC.search(label)
    clock, evaluated = _TRAIN_TIME.search(rest), _EVAL.search(rest)
    return Score(
        label=label,
        loss=loss,
        bpb=bpb,
        line=line,
        step=int(step[1]) if step else None,
        total=int(step[2]) if step else None,
        train_seconds=_clock(clock, where),
        eval_seconds=_clock(evaluated, where),
        diagnostic=bool(_DIAGNOSTIC.search(label)),
    )


def _clock(match: re.Match[str] | None, where: str) -> Printed | None:
    value = printed(match[1], where) if match else None
    if match is None or value is None:
        return None
    scale = _SECONDS[match[2]]
    return Printed(value.value * scale, value.unit * scale, where)


def progress(text: str, where: str) -> tuple[int, Printed] | None:
    """(step, seconds trained) of a line of training progress."""
    match = _PROGRESS.match(text)
    seconds = printed(match[3], where) if match else None
    if match is None or seconds is None:
        return None
    scale = _SECONDS[match[4]]
    return int(match[1]), Printed(seconds.value * scale, seconds.unit * scale, where)


Handler = Callable[[Block, "re.Match[str]", int, str], None]
_HANDLERS: dict[str, list[tuple[re.Pattern[str], Handler]]] = {}


def _literal(pattern: str) -> str:
    """The plain text that a pattern begins with."""
    return pattern[: len(pattern) - len(pattern.lstrip(_PLAIN))]


def _on(pattern: str) -> Callable[[Handler], Handler]:
    """Register a handler under every way its pattern can begin."""

    def keep(handler: Handler) -> Handler:
        _HANDLERS.setdefault(_literal(pattern)[:4], []).append((re.compile(pattern), handler))
        return handler

    return keep


@_on(rf"seed:\s*{_I}\s*$")
def _seed(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.seeds.append((int(match[1]), line))


@_on(rf"  seed:\s*{_I}\s*$")
def _seed_setting(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.seeds.append((int(match[1]), line))


@_on(rf"params:{_I}\b(?:.*?\bws:{_I}\b)?(?:.*?\bs:{_I}\b)?")
def _one_line_setup(block: Block, match: re.Match[str], line: int, where: str) -> None:
    """The set-up of the ternary and binary records, in one line."""
    block.params = int(match[1])
    block.world_size = int(match[2]) if match[2] else block.world_size
    if match[3]:
        block.seeds.append((int(match[3]), line))


@_on(rf"val_loader:.*?\btokens:\s*{_I}")
def _val_loader(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.val_tokens.append((int(match[1]), line))


@_on(rf"val_tokens:\s*{_I}\s*$")
def _val_tokens(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.val_tokens.append((int(match[1]), line))


@_on(rf"train_loader:.*?\btrain_shards:\s*{_I}")
def _train_loader(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.train_shards = (int(match[1]), line)


@_on(rf"train_shards:\s*{_I}\s*$")
def _train_shards(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.train_shards = (int(match[1]), line)


@_on(rf"train_batch_tokens:{_I}\b(?:.*?\bmax_wallclock_seconds:{_F})?")
def _batch(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.batch_tokens = int(match[1])
    if match[2]:
        block.cap_seconds = printed(match[2], where)


@_on(rf"  train_batch_tokens:\s*{_I}\s*$")
def _batch_setting(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.batch_tokens = int(match[1])


@_on(rf"  max_wallclock_seconds:\s*{_F}\s*$")
def _cap(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.cap_seconds = printed(match[1], where)


@_on(rf"model_params:\s*{_I}")
def _params(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.params = int(match[1])


@_on(rf"world_size:{_I}")
def _world(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.world_size = int(match[1])


@_on(rf"  world_size:\s*{_I}\s*$")
def _world_setting(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.world_size = int(match[1])


@_on(rf"stopping_early:\s*\w+\s+train_time:\s*{_I}ms(?:\s+step:\s*{_I}/{_I})?")
def _stop(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.stop_seconds = Printed(int(match[1]) / 1000, 1e-3, where)
    if match[2]:
        block.stop_step = (int(match[2]), line)


@_on(rf"Total submission size(?: (\S+))?:\s*{_I} bytes")
def _total(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.totals.append(Size(match[1] or "", int(match[2]), line))


@_on(rf"Serialized model(?: (\S+))?:\s*{_I} bytes")
def _model(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.models.append(Size(match[1] or "", int(match[2]), line))


@_on(rf"Code size(?: \((\w+)\))?:\s*{_I} bytes")
def _code(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.codes.append(Size(match[1] or "", int(match[2]), line))


@_on(rf"budget:\s*{_I}/{_I}\b")
def _budget(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.totals.append(Size("budget", int(match[1]), line))


@_on(rf"gptq:reserving\s+{_F}(ms|s)\b")
def _reserve(block: Block, match: re.Match[str], line: int, where: str) -> None:
    seconds = printed(match[1], where)
    if seconds:
        block.reserve_seconds = Printed(seconds.value * _SECONDS[match[2]], seconds.unit * _SECONDS[match[2]], where)


@_on(rf"GPTQ:collected\s+{_I}\s+Hessians\s+in\s+{_F}s")
def _hessians(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.calibration.append(Clock("Hessians collected", float(match[2]), line))


@_on(rf"gptq:calibrated\s+{_I}\s+\w+\s+in\s+{_F}s")
def _calibrated(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.calibration.append(Clock("calibrated", float(match[2]), line))


@_on(rf"gptq:generated\s+{_I}\s+sequences\s+in\s+{_F}s")
def _generated(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.self_generated = True


@_on(rf"total_eval_time:\s*{_F}(ms|s)")
def _total_eval(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.total_eval = _clock_of(match, where)


@_on(rf"ttt_lora:compile warmup done \({_F}s\)")
def _warmup(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.untimed.append(Clock("compile warm-up before the evaluation timer", float(match[1]), line))


@_on(rf"ttt_phased:\s*total_docs:{_I}")
def _documents(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.documents = (int(match[1]), line)


@_on(rf"ngram_hints:.*?\btoken_gate:{_I}\s+within_gate:{_I}\s+word_gate:{_I}")
def _hints(block: Block, match: re.Match[str], line: int, where: str) -> None:
    block.hints = (int(match[1]), int(match[2]), int(match[3]), line)


def _clock_of(match: re.Match[str], where: str) -> Printed | None:
    value = printed(match[1], where)
    return Printed(value.value * _SECONDS[match[2]], value.unit * _SECONDS[match[2]], where) if value else None


STARTS: dict[bytes, tuple[bytes, ...]] = {
    head.encode(): tuple({_literal(pattern.pattern).encode() for pattern, _ in rows})
    for head, rows in _HANDLERS.items()
}
"""First four bytes -> how the lines that carry a fact begin."""


def take_line(block: Block, text: str, line: int, where: str) -> None:
    """Let the handlers of this kind of line read it."""
    for pattern, handler in _HANDLERS.get(text[:4], ()):
        match = pattern.match(text)
        if match:
            handler(block, match, line, where)
            return
