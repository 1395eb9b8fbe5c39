"""The evaluator of answers against a table of 60 replies whose values and scores were worked out by hand."""

# ruff: noqa: RUF001  (signs that people write are told apart here)

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, figure
from worldline.answers.choices import parse_choice
from worldline.answers.quantities import parse_interval, parse_quantity
from worldline.answers.scoring import RULES, Question, judge

OPTIONS = {"A": "left", "B": "right", "C": "not moving", "D": "toward the camera"}
METRES = {"A": "4.8 m", "B": "7.8 m", "C": "12 m", "D": "30 m"}
NAN = math.nan


@dataclass(frozen=True)
class Reply:
    """A reply with what it says and is worth, by hand.

    Attributes:
        text: the reply.
        unit: of the question; "" for words and options.
        true: the true number, interval, word or letter.
        said: what the reply says in that unit, or None where it says nothing readable.
        rules: by which it is scored.
        score: 0 to 1.
        options: of a multiple choice.
    """

    text: str
    unit: str
    true: Any
    said: Any
    rules: str
    score: float
    options: dict[str, str] | None = None


TABLE = (
    # metric lengths; ST-VLM allows 7.5 to 12.5 m where the truth is 10 m
    Reply("The car travels 12.5 meters.", "m", 10.0, 12.5, "st_vlm", 1.0),
    Reply("12.51 m", "m", 10.0, 12.51, "st_vlm", 0.0),
    Reply("about 980 cm", "m", 10.0, 9.8, "st_vlm", 1.0),
    Reply("7400 mm", "m", 10.0, 7.4, "st_vlm", 0.0),
    Reply("roughly 0.01 km", "m", 10.0, 10.0, "st_vlm", 1.0),
    Reply("~11", "m", 10.0, 11.0, "st_vlm", 1.0),
    # 1 ft = 0.3048 m, 1 in = 0.0254 m, 1 yd = 0.9144 m, 1 mi = 1609.344 m
    Reply("It moves 30 feet.", "m", 10.0, 9.144, "st_vlm", 1.0),
    Reply("five feet six inches", "m", 2.0, 1.6764, "rgpt", 1.0),  # 60 + 6 = 66 in
    Reply("5'6\"", "m", 2.3, 1.6764, "rgpt", 0.0),  # 0.75 x 2.3 = 1.725
    Reply("12 yd", "m", 11.0, 10.9728, "stride", 1.0),
    Reply("half a mile", "m", 1000.0, 804.672, "stride", 1.0),
    Reply("Around 1/4 mile", "m", 1000.0, 402.336, "stride", 0.0),
    Reply("48.47 centimeters wide", "m", 0.254, 0.4847, "rgpt", 0.0),
    # numbers in words
    Reply("two and a half meters", "m", 2.5, 2.5, "vsi", 1.0),
    Reply("A meter and a half, approximately.", "m", 2.0, 1.5, "vsi", 0.6),  # off by 25 %: 0.5 to 0.75, six of ten
    Reply("one hundred and twenty-five metres", "m", 100.0, 125.0, "vsi", 0.6),
    Reply("twenty-one point five m", "m", 20.0, 21.5, "vsi", 0.9),  # off by 7.5 %: all but 0.95
    Reply("a dozen meters", "m", 10.0, 12.0, "vsi", 0.7),  # off by 20 %: 0.5 to 0.8
    # ranges, spreads, separators, signs
    Reply("10-12 m", "m", 11.0, 11.0, "vsi", 1.0),
    Reply("between 8 and 10 meters", "m", 10.0, 9.0, "vsi", 0.9),  # off by 10 %: 0.5 to 0.9
    Reply("8 m to 9 m", "m", 10.0, 8.5, "rgpt", 1.0),
    Reply("12 ± 2 m", "m", 10.0, 12.0, "rgpt", 1.0),
    Reply("1,250 m", "m", 1000.0, 1250.0, "rgpt", 1.0),
    Reply("12,5 m", "m", 12.0, 12.5, "rgpt", 1.0),
    Reply("1.2 × 10² m", "m", 100.0, 120.0, "rgpt", 1.0),
    Reply("-18°", "deg", -9.0, -18.0, "stride", 1.0),
    Reply("at a 175-degree angle to the right of us", "deg", -179.0, 175.0, "stride", 1.0),  # 6 degrees apart over 180
    Reply("minus twenty degrees", "deg", -9.0, -20.0, "stride", 0.0),
    # speeds; the truth in the question's unit
    Reply("25 mph", "km/h", 40.0, 40.2336, "st_vlm", 1.0),
    Reply("It is doing 11 m/s.", "km/h", 30.0, 39.6, "st_vlm", 0.0),  # 32 % too fast
    Reply("30 kilometers per hour", "km/h", 36.0, 30.0, "stride", 1.0),  # 16.7 % off
    Reply("28 kph", "km/h", 36.0, 28.0, "stride", 0.0),  # 22.2 % off
    Reply("15 knots", "km/h", 30.0, 27.78, "st_vlm", 1.0),
    Reply("20 feet per second", "m/s", 6.0, 6.096, "stride", 1.0),
    Reply("0.25 m/s", "m/s", 0.15, 0.25, "stride", 1.0),  # below 0.5 m/s, 0.1 m/s is allowed
    Reply("The pedestrian is not moving.", "m/s", 0.2, 0.0, "stride", 0.0),
    Reply("It covers 20 m in 2 s, so it moves at 36 km/h.", "km/h", 36.0, 36.0, "st_vlm", 1.0),
    # clock directions
    Reply("3 o'clock", "o'clock", 3.0, 3.0, "st_vlm", 1.0),
    Reply("two o'clock", "o'clock", 3.0, 2.0, "st_vlm", 0.0),
    Reply("At the 12 o’clock direction, straight ahead", "o'clock", 1.0, 12.0, "rgpt", 1.0),
    Reply("11 o'clock", "o'clock", 1.0, 11.0, "rgpt", 0.0),  # two hours apart across twelve
    Reply("between 2 and 3 o'clock", "o'clock", 3.0, 2.5, "st_vlm", 0.0),
    Reply("It heads to 15 o'clock.", "o'clock", 3.0, None, "st_vlm", 0.0),
    # intervals: IoU of [2, 6] and [3, 6] is 3/4, of [2, 6] and [1, 3] it is 1/5
    Reply("from 3 to 6 seconds", "s", (2.0, 6.0), (3.0, 6.0), "st_vlm", 1.0),
    Reply("It starts at 1 s and ends at 3 s.", "s", (2.0, 6.0), (1.0, 3.0), "st_vlm", 0.0),
    Reply("[2.0, 4.0]", "s", (2.0, 6.0), (2.0, 4.0), "st_vlm", 1.0),  # IoU 2/4, exactly enough
    Reply("00:02-00:06", "s", (2.0, 6.0), (2.0, 6.0), "st_vlm", 1.0),
    Reply("From two to four and a half seconds", "s", (2.0, 6.0), (2.0, 4.5), "st_vlm", 1.0),
    Reply("at around 3 s", "s", (2.0, 6.0), None, "st_vlm", 0.0),
    # reasoning before the answer
    Reply("<think>The lane is 3.5 m wide, maybe 8 m.</think> 11 m", "m", 10.0, 11.0, "st_vlm", 1.0),
    Reply("It first moves 5 m, then 7 m. The distance is \\boxed{12 \\text{ m}}.", "m", 10.0, 12.0, "st_vlm", 1.0),
    Reply("First 5 m, then 7 m.\nFinal answer: 12 meters (39 ft)", "m", 10.0, 12.0, "st_vlm", 1.0),
    # not readable: no number, or one of something else
    Reply("I cannot tell from the video.", "m", 10.0, None, "st_vlm", 0.0),
    Reply("It takes 10 seconds.", "m", 10.0, None, "st_vlm", 0.0),
    # options
    Reply("(B)", "", "B", "B", "mcq", 1.0, OPTIONS),
    Reply("The answer is C: the car is stationary.", "", "B", "C", "mcq", 0.0, OPTIONS),
    Reply("It is approaching us, not moving to the left.", "", "D", "D", "mcq", 1.0, OPTIONS),
    Reply("Either left or right", "", "A", None, "mcq", 0.0, OPTIONS),
    Reply("It travels about 12 meters.", "", "C", "C", "mcq", 1.0, METRES),
    # a count by mean relative accuracy: 4 of 5 is off by 20 %, thresholds 0.5 to 0.8
    Reply("There are four chairs.", "count", 5.0, 4.0, "vsi", 0.7),
)  # fmt: skip


def question_of(reply: Reply) -> Question:
    """Return the question that a reply of the table answers."""
    if reply.options is not None:
        return Question("q", "choice", "?", reply.true, options=reply.options)
    if isinstance(reply.true, tuple):
        return Question("q", "interval", "?", "", reply.unit, *reply.true)
    return Question("q", "number", "?", "", reply.unit, reply.true)


def read(reply: Reply) -> Any:
    """Return what the evaluator reads in a reply."""
    if reply.options is not None:
        return parse_choice(reply.text, reply.options)
    return parse_interval(reply.text) if isinstance(reply.true, tuple) else parse_quantity(reply.text, reply.unit)


def differs(reply: Reply) -> str:
    """Return how the evaluator's reading and score differ from those by hand; "" where they do not."""
    said, answer = read(reply), judge(question_of(reply), reply.text, RULES[reply.rules])
    if not _same(said, reply.said):
        return f"{reply.text!r} is read as {said}, by hand {reply.said}"
    if abs(answer.score - reply.score) > 1e-9:
        return f"{reply.text!r} scores {answer.score:g} by {reply.rules}, by hand {reply.score:g}"
    return ""


def _same(said: Any, wanted: Any) -> bool:
    if said is None or wanted is None or isinstance(wanted, str):
        return bool(said == wanted)
    pairs = zip(said, wanted, strict=True) if isinstance(wanted, tuple) else ((said, wanted),)
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs)


def measure_evaluator(folder: Path, quick: bool) -> list[Figure]:
    """Measure the share of the table that is read and scored as by hand."""
    wrong = [text for text in map(differs, TABLE) if text]
    detail = f"{len(TABLE)} replies read and scored by hand" + (f"; {'; '.join(wrong)}" if wrong else "")
    return [figure("labels.evaluator_right", 1 - len(wrong) / len(TABLE), "share", "1 asked", detail)]
