"""A program of somebody else's, measured: started in a jail, planned for, charged, probed. Judges nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from underpar.core.units import BITS_PER_NAT
from underpar.data.tokenizer_base import Tokenizer
from underpar.referee.adapters.command import CommandLine, CommandPredictor
from underpar.referee.adapters.printed import PrintedScore, read_printed
from underpar.referee.adapters.python import PythonPredictor
from underpar.referee.candidate import UNITS, Candidate
from underpar.referee.case import Kind
from underpar.referee.examine import run_probes
from underpar.referee.held_out import shard_bytes
from underpar.referee.jail.run import Ended, Jail
from underpar.referee.ledger import add_up
from underpar.referee.measurement import Measurement
from underpar.referee.plan import Abilities, Plan, make_plan, measure_cost
from underpar.referee.probes.canary_text import uniform_canary
from underpar.referee.probes.memory import longest_free_run
from underpar.referee.probes.overlap import overlap
from underpar.referee.probes.unseen import unseen_gap

ProgramPredictor = PythonPredictor | CommandPredictor


class ProgramExamination:
    """One examination of one candidate, from its start to its facts."""

    def __init__(
        self,
        candidate: Candidate,
        tokens: np.ndarray,
        tokenizer: Tokenizer | None,
        *,
        seed: int,
        budget_seconds: float,
        plan: Plan | None,
        found: Measurement,
    ) -> None:
        self.candidate, self.tokens, self.tokenizer = candidate, tokens, tokenizer
        self.seed, self.budget_seconds, self.plan, self.found = seed, budget_seconds, plan, found
        self.vocab_size, self.bos_id = candidate.alphabet(tokens, tokenizer)
        self.printed: PrintedScore | None = None
        """What the program says of the whole text, where it prints anything."""
        self.whole_seconds: float | None = None

    @property
    def kind(self) -> Kind:
        """Whether charges can be followed, or only a printed loss."""
        start = self.candidate.start
        is_silent = isinstance(start, CommandLine) and not start.mentions("charges")
        return Kind.AGGREGATE if is_silent else Kind.POSITIONS

    def run(self) -> None:
        """Fill the facts."""
        found, one = self.found, self.candidate
        said = found.stage("text", lambda: shard_bytes(self.tokens, self.tokenizer, one.text, lambda done: None))
        counts = None
        if said is not None:
            known, held_out = said
            counts = known.counts
            found.facts["bytes"] = known.to_json()
            found.facts |= {"text": held_out.to_json()} if held_out is not None else {}
        if self.tokenizer is not None:
            found.facts["tokenizer"] = dict(self.tokenizer.identity)
        found.facts["alphabet"] = {"vocab_size": self.vocab_size, "bos_id": self.bos_id, "tokens": len(self.tokens)}
        with ExitStack() as stack:
            jail = stack.enter_context(
                Jail(one.inputs(), read_only=one.read_only, limits=one.limits, devices=one.devices)
            )
            predictor = found.stage("start", lambda: self._start(jail))
            if predictor is not None:
                stack.callback(self._close, predictor)
                if self.kind is Kind.AGGREGATE:
                    self._print(predictor, counts)
                else:
                    self._charge(predictor, counts)
        if one.train and self.bos_id is not None:
            bos, stretches = self.bos_id, found.facts.get("free_run", {}).get("stretches", [])
            found.fact("overlap", lambda: overlap(self.tokens, bos, one.train, stretches))

    def _start(self, jail: Jail) -> ProgramPredictor:
        one = self.candidate
        size, bos, unit = self.vocab_size, self.bos_id, UNITS[one.unit]
        if isinstance(one.start, CommandLine):
            made = CommandPredictor(jail, one.start, vocab_size=size, bos_id=bos, nats_per_unit=unit)
            made.traced_tokens = len(self.tokens)
            return made
        return PythonPredictor(jail, one.start, vocab_size=size, bos_id=bos, nats_per_unit=unit)

    # ----------------------------------------------------------------------------------------- charges of positions

    def _charge(self, predictor: ProgramPredictor, counts: np.ndarray | None) -> None:
        found, tokens = self.found, self.tokens
        can = Abilities.of(predictor, tokens)
        plan = self.plan
        if plan is None:
            cost = found.stage("cost", lambda: measure_cost(predictor, tokens, self.budget_seconds))
            if cost is None:
                found.errors["score"] = found.errors.pop("cost")
                return
            found.facts["cost"] = cost.to_json()
            plan = make_plan(self.budget_seconds, cost, can)
        found.facts["plan"] = plan.to_json()
        if plan.whole_stream:
            self._score(predictor, counts)
            if "score" in found.errors:
                return
        run_probes(predictor, tokens, plan, self.seed, found)
        if self.candidate.unseen is not None and plan.whole_stream:
            path = self.candidate.unseen
            found.fact("unseen", lambda: unseen_gap(predictor, tokens, path, plan.canary_tokens))

    def _score(self, predictor: ProgramPredictor, counts: np.ndarray | None) -> None:
        found = self.found
        began = time.perf_counter()
        charges = found.stage("score", lambda: predictor.charges(self.tokens))
        self.whole_seconds = round(time.perf_counter() - began, 3)
        if charges is None:
            return
        found.facts["score"] = add_up(charges, self.tokens, self.bos_id, counts).to_json()
        found.fact("free_run", lambda: longest_free_run(charges, self.tokens))
        if isinstance(predictor, CommandPredictor):
            self.printed = read_printed(predictor.runs[-1].stdout)
            if self.printed is not None:
                found.facts["printed"] = self.printed.to_json() | {"stream_tokens": len(self.tokens)}

    # ----------------------------------------------------------------------------------------- a printed loss

    def _print(self, predictor: ProgramPredictor, counts: np.ndarray | None) -> None:
        assert isinstance(predictor, CommandPredictor)
        found, tokens = self.found, self.tokens
        began = time.perf_counter()
        self.printed = found.stage("score", lambda: predictor.printed(tokens))
        self.whole_seconds = time.perf_counter() - began
        if self.printed is None:
            return
        found.facts["printed"] = self.printed.to_json() | {"stream_tokens": len(tokens)}
        if self.printed.loss_nats is not None:
            found.facts["score"] = self._printed_score(self.printed, self.printed.loss_nats, counts)
        found.facts["plan"] = {"canaries": ["uniform"], "runs": 3}
        text = uniform_canary(tokens, np.bincount(tokens), self.bos_id, self.seed + 10)
        answer = found.stage("printed_canary", lambda: predictor.printed(text.tokens))
        if answer is not None:
            scored = answer.tokens or len(tokens) - 1
            drawn = int(text.drawn[:scored].sum())
            found.facts["printed_canary"] = answer.to_json() | {
                "entropy_nats": text.entropy_nats,
                "drawn": drawn,
                "scored": scored,
                "is_count_known": answer.tokens is not None,
            }
        if 3 * self.whole_seconds <= self.budget_seconds:
            again = found.stage("printed_again", lambda: predictor.printed(tokens))
            found.facts |= {"printed_again": again.to_json()} if again is not None else {}

    def _printed_score(self, printed: PrintedScore, loss_nats: float, counts: np.ndarray | None) -> dict[str, Any]:
        """What a printed loss adds up to over the tokens that it is said to be of."""
        scored = min(printed.tokens or len(self.tokens) - 1, len(self.tokens) - 1)
        bits = loss_nats * scored * BITS_PER_NAT
        text_bytes = None if counts is None else int(counts[1 : scored + 1].sum())
        return {
            "bits": bits,
            "tokens": scored,
            "loss_nats": loss_nats,
            "bytes": text_bytes,
            "bpb": bits / text_bytes if text_bytes else None,
            "documents": 1 if self.bos_id is None else int((self.tokens == self.bos_id).sum()),
            "uncharged_tokens": len(self.tokens) - 1 - scored,
            "stream_tokens": len(self.tokens),
        }

    # ----------------------------------------------------------------------------------------- what it touched

    def _close(self, predictor: ProgramPredictor) -> None:
        predictor.close()
        runs = predictor.runs if isinstance(predictor, CommandPredictor) else [predictor.ended]
        ended = [one for one in runs if one is not None]
        if not ended:
            return
        level = ended[0].level
        self.found.facts["closure"] = asdict(level) | {"statement": level.statement}
        self.found.facts["sandbox"] = {
            "runs": len(ended),
            "most_processes": max(one.most_processes for one in ended),
            "most_memory_bytes": max(one.most_memory_bytes for one in ended),
            "whole_seconds": self.whole_seconds,
            "limit_seconds": self.candidate.limit_seconds,
            "limits": asdict(self.candidate.limits),
            "files": _log(ended),
            "submission_files": self._opened(predictor.jail, ended),
        }

    def _opened(self, jail: Jail, ended: Sequence[Ended]) -> list[dict[str, Any]] | None:
        """The files of the submission that were read, with their sizes; None without a log."""
        log = _log(ended)
        if log is None:
            return None
        files = self.candidate.submission_files()
        roots = [jail.inputs / "submission", jail.work]
        found = set()
        for name in log["read"]:
            path = jail.work / name  # a relative name is relative to the working folder
            for root in roots:
                if path.is_relative_to(root):
                    found.add(str(PurePosixPath(path.relative_to(root))))
        return [{"name": name, "bytes": files[name].stat().st_size} for name in sorted(found & files.keys())]


def _log(ended: Sequence[Ended]) -> dict[str, Any] | None:
    """The logs of all traced runs together; None where nothing could be traced."""
    logs = [one.files.to_json() for one in ended if one.files is not None]
    if not logs:
        return None
    kinds = [kind for kind in logs[0] if kind != "dropped"]
    joined: dict[str, Any] = {kind: list(dict.fromkeys(name for log in logs for name in log[kind])) for kind in kinds}
    return joined | {"dropped": sum(log["dropped"] for log in logs)}
