"""Rules that decide whether answers are right, as published with the benchmarks that use them.

    report = score(questions, {"17": "about 12 meters"}, RULES["st_vlm"])
    report.kinds[0].correct_share

Every question counts in the denominators: one that was not answered, or whose answer cannot be read, is wrong, and is
counted under its reason as well. Distances, times and speeds are compared in the question's unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from schemas.errors import WorldlineError
from worldline.answers.choices import compared_objects, meaning, parse_choice, parse_object, parse_word
from worldline.answers.quantities import UNITS, parse_interval, parse_quantity

_SLACK = 1e-9  # a difference of exactly 25 % counts as within 25 %, however its digits round
_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class Question:
    """A question with its true answer.

    Attributes:
        id: what answers refer to; several quantities asked for in one question share it.
        kind: what rows of a report are made of.
        text: the question.
        answer: the true answer in words.
        unit: a name in `quantities.UNITS`, or "" where the answer is words.
        value: the true number in `unit`; NaN where the answer is words or an option.
        end_value: end of an interval that begins at `value`; NaN where the answer is none.
        options: texts by letter of a multiple choice; `answer` is then a letter.
    """

    id: str
    kind: str
    text: str
    answer: str
    unit: str = ""
    value: float = float("nan")
    end_value: float = float("nan")
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """What an answer is: "option", "interval", "words", or the dimension of a number."""
        if self.options:
            return "option"
        if not self.unit:
            return "words"
        return "interval" if np.isfinite(self.end_value) else UNITS[self.unit][0]


@dataclass(frozen=True)
class Rules:
    """When an answer is right.

    Attributes:
        relative: largest relative error of a number, by dimension.
        floor: an absolute error in base units that is always allowed, by dimension.
        angle_deg: largest error of an angle, shortest way round; None where angles have no rule.
        clock_hours: largest error of a clock direction, shortest way round; None where there is no rule.
        interval_iou: least temporal intersection over union; None where there is no rule.
        mean_relative_accuracy: numbers score the share of the thresholds 0.5, 0.55, ... 0.95 that they reach, and are
            right where they reach all of them.
        words: whether answers in words, and which of two objects, have a rule.
        source: where the rules come from.
    """

    relative: Mapping[str, float] = field(default_factory=dict)
    floor: Mapping[str, float] = field(default_factory=dict)
    angle_deg: float | None = None
    clock_hours: float | None = None
    interval_iou: float | None = None
    mean_relative_accuracy: bool = False
    words: bool = True
    source: str = ""

    def cover(self, form: str) -> bool:
        """Return whether there is a rule for a form of answers."""
        if form == "option":
            return True
        if form == "words":
            return self.words
        given = {"angle": self.angle_deg, "clock": self.clock_hours, "interval": self.interval_iou}
        return given[form] is not None if form in given else self.mean_relative_accuracy or form in self.relative


_NUMBERS = ("length", "speed", "acceleration", "area", "time", "count")
RULES = {
    "st_vlm": Rules(
        relative=dict.fromkeys(_NUMBERS, 0.25), clock_hours=0.0, interval_iou=0.5,
        source="ST-VLM (arXiv 2503.19355): within 25 %, the very clock hour, temporal IoU of at least 0.5",
    ),
    "rgpt": Rules(
        relative=dict.fromkeys(_NUMBERS, 0.25), clock_hours=1.0,
        source="SpatialRGPT-Bench: 0.75 to 1.25 times the truth, clock hours at most one apart",
    ),
    "stride": Rules(
        relative={"length": 0.25, "speed": 0.2}, floor={"speed": 0.1}, angle_deg=10.0,
        source="STRIDE-QA-Bench: distance 25 %, bearing 10 degrees, velocity 20 % but at least 0.1 m/s",
    ),
    "vsi": Rules(
        mean_relative_accuracy=True, source="VSI-Bench: options exact, numbers by mean relative accuracy over 0.5, 0.55, ... 0.95"
    ),
    "mcq": Rules(source="VLM4D and STI-Bench: accuracy of options; words must mean the same"),
}  # fmt: skip


@dataclass(frozen=True)
class KindScore:
    """How the questions of one kind were answered.

    Attributes:
        kind, unit: of the questions.
        questions: how many.
        missing: without an answer.
        unparsed: with an answer that says nothing readable.
        no_rule: for which the rules say nothing; they are in no figure below.
        correct_share: right answers among all questions with a rule.
        score: mean score of the same; equal to `correct_share` but for mean relative accuracy.
        error_mean, error_median: absolute error of what could be read, in `unit` (hours, degrees or seconds the shortest
            way round); NaN for words and options. For intervals it is 1 - IoU.
        relative_error_mean: the same relative to the truth, over truths that are not 0.
        iou_mean: mean temporal IoU of intervals; unread ones count as 0. NaN for other kinds.
    """

    kind: str
    unit: str
    questions: int
    missing: int
    unparsed: int
    no_rule: int
    correct_share: float
    score: float
    error_mean: float
    error_median: float
    relative_error_mean: float
    iou_mean: float


@dataclass(frozen=True)
class Report:
    """What a set of answers is worth.

    Attributes:
        kinds: by kind, and last the whole, called "all".
        unknown: ids of answers to no question.
        unparsed: the replies that could not be read, by question id.
    """

    kinds: tuple[KindScore, ...]
    unknown: tuple[str, ...]
    unparsed: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What one reply says and what that is worth.

    Attributes:
        state: "read", "missing", "unparsed" or "no_rule".
        score: 0 to 1.
        correct: whether it is right.
        error: absolute, in the question's unit; NaN where it is no number.
    """

    state: str
    score: float = 0.0
    correct: bool = False
    error: float = float("nan")


def score(questions: Sequence[Question], replies: Mapping[str, str], rules: Rules) -> Report:
    """Score replies to questions.

    Args:
        questions: with their true answers.
        replies: text by question id.
        rules: such as `RULES["st_vlm"]`.

    Raises:
        WorldlineError: if there are no questions, no reply belongs to any of them, or no question has a rule.
    """
    if not questions:
        raise WorldlineError("there are no questions to score answers to")
    known = {question.id for question in questions}
    unknown = tuple(sorted(replies.keys() - known))
    if not known & replies.keys():
        raise WorldlineError(
            f"none of the {len(replies)} answers belongs to one of the {len(known)} questions: their ids must be those of the "
            f"questions, such as {questions[0].id}"
        )
    answers = [judge(question, replies.get(question.id), rules) for question in questions]
    if all(answer.state == "no_rule" for answer in answers):
        named = ", ".join(sorted({question.kind for question in questions}))
        raise WorldlineError(f"these rules say nothing about questions of the kinds {named}: choose other rules")
    rows = {
        kind: [row for row, item in enumerate(questions) if item.kind == kind] for kind in sorted({q.kind for q in questions})
    }
    kinds = [_summary(kind, [questions[row] for row in own], [answers[row] for row in own]) for kind, own in rows.items()]
    told = {q.id: str(replies[q.id]) for q, answer in zip(questions, answers, strict=True) if answer.state == "unparsed"}
    return Report((*kinds, _summary("all", questions, answers)), unknown, told)


def judge(question: Question, reply: str | None, rules: Rules) -> Answer:
    """Read one reply and say what it is worth."""
    if not rules.cover(question.form):
        return Answer("no_rule")
    if reply is None:
        return Answer("missing")
    if question.form in ("option", "words"):
        return _judge_words(question, reply)
    if question.form == "interval":
        interval = parse_interval(reply, question.unit)
        if interval is None:
            return Answer("unparsed")
        overlap = temporal_iou(interval, (question.value, question.end_value))
        right = rules.interval_iou is not None and overlap >= rules.interval_iou - _SLACK
        return Answer("read", float(right), right, 1 - overlap)
    said = parse_quantity(reply, question.unit)
    if said is None:
        return Answer("unparsed")
    return _judge_number(question, said, rules)


def _judge_words(question: Question, reply: str) -> Answer:
    if question.options:
        said, true = parse_choice(reply, question.options), question.answer
    elif (objects := compared_objects(question.text, question.answer)) is not None:
        said, true = parse_object(reply, objects), question.answer
    else:
        said, true = parse_word(reply, question.answer), meaning(question.answer)
    return Answer("unparsed") if said is None else Answer("read", float(said == true), said == true)


def _judge_number(question: Question, said: float, rules: Rules) -> Answer:
    dimension, size = UNITS[question.unit]
    error = abs(said - question.value)
    if dimension == "clock":
        error = circular_difference(said, question.value, 12.0)
        assert rules.clock_hours is not None
        right = error <= rules.clock_hours + _SLACK
    elif dimension == "angle" and rules.angle_deg is not None:
        error = circular_difference(said, question.value, 360.0 / size)
        right = error * size <= rules.angle_deg + _SLACK
    elif rules.mean_relative_accuracy:
        share = float(mean_relative_accuracy(np.array([said]), np.array([question.value]))[0])
        return Answer("read", share, share == 1.0, error)
    else:
        allowed = rules.relative[dimension] * abs(question.value)
        right = error <= max(allowed, rules.floor.get(dimension, 0.0) / size) * (1 + _SLACK) + _SLACK * (allowed > 0)
    return Answer("read", float(right), bool(right), error)


def circular_difference(a: float, b: float, period: float) -> float:
    """Return the distance of two points on a circle of this circumference."""
    return float(abs((a - b + period / 2) % period - period / 2))


def temporal_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the intersection over union of two intervals, 0 where their union has no length."""
    overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - overlap
    return overlap / union if union > 0 else 0.0


def mean_relative_accuracy(said: Float64[np.ndarray, " K"], true: Float64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """Return the share of the thresholds t = 0.5, 0.55, ..., 0.95 for which |said - true| / true <= 1 - t (VSI-Bench).

    Where the truth is 0 only 0 is right.
    """
    size = np.abs(true)
    relative = np.where(size > 0, np.abs(said - true) / np.where(size > 0, size, 1.0), np.where(said == true, 0.0, np.inf))
    return np.asarray((relative[:, None] <= 1 - _THRESHOLDS + _SLACK).mean(1))


def _summary(kind: str, questions: Sequence[Question], answers: Sequence[Answer]) -> KindScore:
    states = np.array([answer.state for answer in answers])
    counted = states != "no_rule"
    scores = np.array([answer.score for answer in answers])[counted]
    right = np.array([answer.correct for answer in answers])[counted]
    errors = np.array([answer.error for answer in answers])
    true = np.abs([question.value for question in questions])
    one_unit = len({(question.unit, question.form) for question in questions}) == 1
    read = np.isfinite(errors) & one_unit
    interval = one_unit and questions[0].form == "interval"
    relative = read & (true > 0) & (not interval and one_unit and questions[0].form not in ("clock", "angle"))
    overlaps = np.where(np.isfinite(errors), 1 - errors, 0.0)[counted]
    return KindScore(
        kind=kind,
        unit=questions[0].unit if one_unit else "",
        questions=len(questions),
        missing=int((states == "missing").sum()),
        unparsed=int((states == "unparsed").sum()),
        no_rule=int((~counted).sum()),
        correct_share=_mean(right),
        score=_mean(scores),
        error_mean=_mean(errors[read]),
        error_median=float(np.median(errors[read])) if read.any() else float("nan"),
        relative_error_mean=_mean(errors[relative] / true[relative]),
        iou_mean=_mean(overlaps) if interval else float("nan"),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
