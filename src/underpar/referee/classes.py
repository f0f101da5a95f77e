"""The ways in which a result has been found not to be what it claims: one registry for every tool of the referee.

A class has an id, the rule that it breaks (with the mark of that rule), what is forbidden and why. Checks name the classes
that they can find; worked examples name the class that they show. docs/referee.md is written from both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from underpar.core.errors import ConfigError, suggest
from underpar.referee import rules
from underpar.referee.rules import Mark, Rule


class Severity(IntEnum):
    """What is left of a score of this class."""

    EVIDENCE = 1
    """The evidence or the packaging is defective."""
    NEARLY_RIGHT = 2
    """A rule is broken, the score is nearly right."""
    BIASED = 3
    """The score is materially wrong."""
    MEANINGLESS = 4
    """The score says nothing."""


VERIFY, AUDIT = "verify", "audit"
"""Which verb finds a class: by running the predictor, or by reading the record folder."""


@dataclass(frozen=True)
class InvalidityClass:
    """One way of being wrong."""

    id: str
    """V01 to V28, as the discussions of the game number them."""
    title: str
    rule: Rule
    """The rule that is broken first."""
    severity: Severity
    forbidden: str
    """What is forbidden, in one or two sentences."""
    why: str
    """Why it makes a number wrong."""
    found_by: tuple[str, ...]
    """Verbs that look for it."""
    cases: str
    """Public threads in which it was found or discussed; `#n` is openai/parameter-golf, `NG#n` modded-nanogpt."""

    @property
    def mark(self) -> Mark:
        """The mark of its rule: official, convention or disputed."""
        return self.rule.mark


@dataclass(frozen=True)
class Example:
    """A worked example of a class: what is forbidden beside a twin that is allowed and differs as little as possible."""

    class_id: str
    name: str
    """Unique, a valid identifier."""
    forbidden: str
    """Source or excerpt of the cheat."""
    allowed: str
    """Source or excerpt of the honest twin."""
    difference: str
    """In one sentence, what the difference is and which of the two knows what it must not know."""
    caught_by: tuple[str, ...]
    """Ids of the checks that refuse the cheat."""
    language: str = "python"
    """Of the excerpts, for the page: 'python', 'text', 'json'."""
    contested: bool = False
    """Whether the twin is disputed itself, because it keeps to one reading of a contested rule."""


def _all() -> Iterable[InvalidityClass]:
    s = Severity
    both = (VERIFY, AUDIT)
    yield InvalidityClass(
        "V01", "train on the held-out text, then score it", rules.ADAPT_AFTER, s.MEANINGLESS,
        "Weights, counts or tables are fitted to held-out tokens, often for several epochs, before those tokens are charged.",
        "The predictor has memorised its answers: a charge no longer depends on the artifact and earlier tokens alone.",
        (VERIFY, AUDIT), "#672, #1376, #1485, #1517, #1735, #1911, #1958",
    )  # fmt: skip
    yield InvalidityClass(
        "V02", "optimise on the positions that are scored", rules.CAUSAL, s.MEANINGLESS,
        "A bias, a delta or a scale is fitted to the loss of the same positions that are then charged with it.",
        "Every charge of the window depends on the targets of the whole window. Fitting to earlier positions only "
        "keeps to the conditions; whether it is welcome was asked in #1336 and not ruled on.",
        both, "#1084, #1176, #1209, #1229, #1306, #1430; open: #1336",
    )  # fmt: skip
    yield InvalidityClass(
        "V03", "score again with later state", rules.SINGLE_PASS, s.MEANINGLESS,
        "A second sweep charges positions anew with a state built from the whole text, or the better of several sweeps counts.",
        "Taken to its limit the text costs nothing: the second sweep has read it.",
        both, "#846, #868, #881, #888, #933, #959, #991",
    )  # fmt: skip
    yield InvalidityClass(
        "V04", "cache keyed by the target, not normalised", rules.NORMALISED, s.MEANINGLESS,
        "A table whose key contains the target is read for the realised token only and mixed into its probability.",
        "Nobody ever computes what the other tokens would have got. Their probabilities sum to tens or hundreds. A "
        "cache that gives every candidate its value and renormalises is allowed.",
        both, "#727, #779 (ruling), #809, #864, #972 (0.39 became 1.51 in #978), #1147",
    )  # fmt: skip
    yield InvalidityClass(
        "V05", "gate or hint that looks at the target", rules.CAUSAL, s.BIASED,
        "Whether a boost fires is decided by a property of the token that is about to be charged.",
        "The gate tells the predictor something about its answer: up to one bit a token.",
        both, "#1420 (corrected in #1437), #1967, #2018, #2118; the correct form: #1514",
    )  # fmt: skip
    yield InvalidityClass(
        "V06", "byte mixture that is no distribution", rules.NORMALISED, s.MEANINGLESS,
        "A token's probability is spread geometrically over its bytes and mixed with a byte model byte by byte.",
        "The n-th root of a token's probability is no probability of a byte; what is mixed does not sum to 1.",
        both, "#1785, #1835, #1854, #1872 (discussion), #1881; an audited normalised form: #1916",
    )  # fmt: skip
    yield InvalidityClass(
        "V07", "choice between predictors with hindsight", rules.NORMALISED, s.MEANINGLESS,
        "The smaller of two charges is taken at each position, or mixing weights are chosen by what they turned out to cost.",
        "The maximum of two distributions sums to more than 1.",
        both, "#659 (review)",
    )  # fmt: skip
    yield InvalidityClass(
        "V08", "part of the held-out text, or another part", rules.SCORE, s.BIASED,
        "Some of the held-out tokens are charged and the result is reported as that of all of them.",
        "Parts differ in difficulty, and the part can be chosen.",
        both, "#1785, #1835, #1854, #1858, #1881, #2109",
    )  # fmt: skip
    yield InvalidityClass(
        "V09", "held-out documents among the training documents", rules.HELD_OUT, s.BIASED,
        "The training shards contain held-out documents, usually because the data was prepared with another split.",
        "The model has been shown its examination.",
        both, "#2018, #2118, #2127 (15 of 34 audited), #2130",
    )  # fmt: skip
    yield InvalidityClass(
        "V10", "held-out text inside the artifact", rules.HELD_OUT, s.MEANINGLESS,
        "The artifact stores held-out tokens, or the model was trained on the held-out shard.",
        "Covered positions cost nothing. Paying for the stored bytes does not make it a model.",
        both, "#44, #64, #168, #262, #275",
    )  # fmt: skip
    yield InvalidityClass(
        "V11", "training data at evaluation", rules.CLOSED, s.MEANINGLESS,
        "Training shards, or tables made from them outside the artifact, are read while scoring or after the training clock.",
        "The byte budget measures nothing when gigabytes of text stand beside the artifact.",
        both, "#593, #609, #883, #925, #945",
    )  # fmt: skip
    yield InvalidityClass(
        "V12", "calibration on held-out text", rules.HELD_OUT, s.BIASED,
        "Quantisation scales, a temperature or a bias are fitted to held-out tokens before these are charged.",
        "Statistics of the answers enter the predictor. Text that the model wrote itself may be used.",
        both, "#728, #991, #1350, #1919; allowed: #1019",
    )  # fmt: skip
    yield InvalidityClass(
        "V13", "warm-up on held-out tokens", rules.SCORE_FIRST, s.NEARLY_RIGHT,
        "Compilation is warmed up with training steps on held-out tokens and the state is put back afterwards.",
        "Harmless only where everything is put back, which nobody can see. Random tokens warm up as well.",
        both, "#1530",
    )  # fmt: skip
    yield InvalidityClass(
        "V14", "a look-back across documents", rules.ISOLATED, s.NEARLY_RIGHT,
        "In a predictor that otherwise keeps documents apart, a local operation reads the last token of the previous document.",
        "The order of documents enters the score through a seam. Still causal, which is why it is argued about.",
        both, "#1797 (1.06157 became 1.06412), #1851, #1855; objection: #1988",
    )  # fmt: skip
    yield InvalidityClass(
        "V15", "bytes counted twice", rules.SCORE, s.MEANINGLESS,
        "The byte of a leading space is in the table of token lengths and is added again while scoring.",
        "The denominator of bits per byte grows by about 17 %, and the score shrinks by as much.",
        both, "#1545, #1687, #1698, #1734 (1.0108 became 1.1873), #1804 (audit tool)",
    )  # fmt: skip
    yield InvalidityClass(
        "V16", "bytes of fallback tokens counted too high", rules.SCORE, s.MEANINGLESS,
        "Byte-fallback ids count as the length of a replacement character, or the space marker as three bytes.",
        "The denominator grows by 4 % to 20 %.",
        both, "#897, #1143, #1184 (reverted in #1806), #1271",
    )  # fmt: skip
    yield InvalidityClass(
        "V17", "tokenizer that rewrites the text", rules.LOSSLESS, s.BIASED,
        "Case folding or heavy Unicode normalisation removes information before the text is scored.",
        "What cannot be recovered was not predicted. A transform that can be undone exactly is allowed. How much "
        "normalisation is tolerable was never ruled on.",
        both, "#1578, #1604, #1670; allowed: #1729",
    )  # fmt: skip
    yield InvalidityClass(
        "V18", "units and estimators", rules.SCORE, s.BIASED,
        "Means of batch means, averages over ranks, positions counted twice, nats taken for bits, a bound reported as exact.",
        "The printed number is not the sum of the charges over the bytes.",
        both, "#1106",
    )  # fmt: skip
    yield InvalidityClass(
        "V19", "artifact over its size", rules.SIZE, s.BIASED,
        "Files that scoring needs are not counted, mebibytes are taken for megabytes, or the size is another seed's.",
        "The size is the handicap of the game.",
        both, "#542, #1412, #1463, #1514, #1809, #1835",
    )  # fmt: skip
    yield InvalidityClass(
        "V20", "training over its time", rules.TIME, s.NEARLY_RIGHT,
        "Training goes on after the cap, calibration is left out of the clock, or the first seconds are not metered.",
        "Time is the other handicap of the game.",
        (AUDIT,), "#1118, #1787, #1851, #1855, #1908, #1934 (compliant: #1950)",
    )  # fmt: skip
    yield InvalidityClass(
        "V21", "evaluation over its time", rules.TIME, s.NEARLY_RIGHT,
        "Scoring takes longer than its limit, or tables, compilation and decompression stand outside its clock.",
        "An evaluation without a limit may train as long as it likes.",
        both, "#1114, #1557, #1945, #2121; unresolved for other tracks: #889, #915",
    )  # fmt: skip
    yield InvalidityClass(
        "V22", "seeds that are none", rules.SIGNIFICANT, s.BIASED,
        "One run is shown as several seeds, the seed of a log is another one than claimed, or the best of many are shown.",
        "The spread is the evidence, and it was made up.",
        (AUDIT,), "#1477, #1557, #1729, #2058, NG#358",
    )  # fmt: skip
    yield InvalidityClass(
        "V23", "record that differs from its own files", rules.PACKAGE, s.BIASED,
        "The headline is in no log, the log is of another configuration, or the source in the log is not the shipped one.",
        "There is no evidence for the number.",
        (AUDIT,), "#86, #1184, #2071",
    )  # fmt: skip
    yield InvalidityClass(
        "V24", "throughput that cannot be reproduced", rules.REPRODUCIBLE, s.NEARLY_RIGHT,
        "The number of steps cannot be reached in the time limit on the reference machine.",
        "More steps are a better model.",
        (AUDIT,), "#86, #1334, #1442, #2014",
    )  # fmt: skip
    yield InvalidityClass(
        "V25", "dependence on things outside", rules.CLOSED, s.BIASED,
        "Scoring downloads, installs, starts undeclared programs or needs settings of one machine.",
        "Whatever comes from outside is not in the byte budget and not reproducible.",
        both, "#1736, #1797, #1855, #1856",
    )  # fmt: skip
    yield InvalidityClass(
        "V26", "change that is never active", rules.ATTRIBUTED, s.EVIDENCE,
        "The argument is not read, the branch is folded away, the printed setting is unused.",
        "The score may stand; what it is attributed to does not.",
        (AUDIT,), "NG#279",
    )  # fmt: skip
    yield InvalidityClass(
        "V27", "speedrun: untimed work and hand-picked runs", rules.SPEEDRUN, s.BIASED,
        "Work moved into untimed compilation, backward passes at validation, another token stream, one hand-picked "
        "seed, a faster machine than the one compared with.",
        "The time is the result, and it leaves something out.",
        (AUDIT,), "NG#80, NG#123, NG#205, NG#217, NG#271, NG#360",
    )  # fmt: skip
    yield InvalidityClass(
        "V28", "numerical corner cases", rules.NORMALISED, s.BIASED,
        "Probabilities are floored for the target only, sums are taken in half precision, bad rows are dropped, "
        "hard tokens are skipped.",
        "Each takes a little off the charge of the realised token that no other token gives back.",
        both, "found in reviews of several submissions",
    )  # fmt: skip


CLASSES: dict[str, InvalidityClass] = {one.id: one for one in _all()}
"""Id -> class, in the order of the ids."""


def invalidity_class(id: str) -> InvalidityClass:
    """The class of an id. Raises ConfigError with the nearest id where there is none."""
    if id not in CLASSES:
        raise ConfigError(f"there is no class '{id}'; {suggest(id, CLASSES)}")
    return CLASSES[id]
