"""Numbers with units in free text: what a model says a distance, speed, time, angle or hour of the clock is.

Every quantity is returned in the base unit of its dimension: m, m/s, m/s2, m2, s, degrees, hours of the clock.
"""

# ruff: noqa: RUF001  (signs that people write are told apart here)

import math
import re
from dataclasses import dataclass

from worldline.answers.final_answer import final_answer
from worldline.answers.number_words import digits_for_words

# Name of each unit that a question can ask for -> (dimension, how many base units it is).
UNITS = {
    "m": ("length", 1.0), "cm": ("length", 0.01), "mm": ("length", 0.001), "dm": ("length", 0.1), "km": ("length", 1000.0),
    "ft": ("length", 0.3048), "in": ("length", 0.0254), "yd": ("length", 0.9144), "mi": ("length", 1609.344),
    "nmi": ("length", 1852.0),
    "m/s": ("speed", 1.0), "km/h": ("speed", 1 / 3.6), "mph": ("speed", 0.44704), "ft/s": ("speed", 0.3048),
    "kn": ("speed", 1852 / 3600),
    "m/s2": ("acceleration", 1.0), "m2": ("area", 1.0),
    "s": ("time", 1.0), "ms": ("time", 0.001), "min": ("time", 60.0), "h": ("time", 3600.0),
    "deg": ("angle", 1.0), "rad": ("angle", 180 / math.pi),
    "o'clock": ("clock", 1.0),
    "count": ("count", 1.0),
}  # fmt: skip

_LENGTHS = (
    ("km", r"kilomet(?:er|re)s?|kms?"), ("cm", r"centimet(?:er|re)s?|cms?"), ("mm", r"millimet(?:er|re)s?|mms?"),
    ("dm", r"decimet(?:er|re)s?|dm"), ("nmi", r"nautical\s+miles?|nmi"), ("m", r"met(?:er|re)s?|mtrs?|m"),
    ("ft", r"feet|foot|ft\.?"), ("in", r"inch(?:es)?"), ("yd", r"yards?|yds?"), ("mi", r"miles?|mi"),
)  # fmt: skip
_TIMES = (
    ("h", r"hours?|hrs?|hr|h"),
    ("min", r"minutes?|mins?|min"),
    ("ms", r"milliseconds?|msecs?|ms"),
    ("s", r"seconds?|secs?|s"),
)
_SPEEDS = (("km/h", r"kmph|kph|kmh"), ("mph", "mph"), ("m/s", "mps"), ("ft/s", "fps"), ("kn", r"knots?|kts?|kn"))
_OTHERS = (("deg", r"degrees?|degs?\.?|°"), ("rad", r"radians?|rads?"), ("o'clock", r"o\s?'?\s?clock|h\b(?=\s*on the clock)"))
_PER = r"\s*(?:/|\bper\b|\ban?\b|\beach\b|\bevery\b|·)\s*"


def _any(units: tuple[tuple[str, str], ...]) -> str:
    return "|".join(pattern for _, pattern in units)


_L, _T = f"(?:{_any(_LENGTHS)})", f"(?:{_any(_TIMES)})"
# "in" is a unit only where no sentence goes on after it ("12 in total").
_INCH = r"in(?=\s*(?:$|[.,;:)!?\n]|tall|long|wide|high|deep|away|apart))"
_UNIT = re.compile(
    rf"\s*-?\s*(?:"
    rf"(?P<acceleration>{_L}{_PER}(?:(?:s|sec|seconds?)\s*(?:\^?\s*2|squared)|{_T}{_PER}{_T})|{_L}\s*[·]?\s*s\^-2)"
    rf"|(?P<speed>{_L}{_PER}{_T}|{_L}\s*[·]?\s*(?:s|h)\s?\^?-1|{_any(_SPEEDS)})"
    rf"|(?P<area>(?:square\s+|sq\.?\s*){_L}|{_L}\s*(?:\^\s*2|squared)|m2)"
    rf"|(?P<other>{_any(_OTHERS)})|(?P<time>{_any(_TIMES)})|(?P<length>{_any(_LENGTHS)}|{_INCH})"
    rf")(?![a-z0-9^/])"
    rf"|(?P<feet>')(?![a-z'])|(?P<inches>\"|'')(?!\w)"
)
_NUMBER = (
    r"(?:\d{1,2}:\d{2}(?::\d{2})?(?!\d)"  # clock or minutes
    r"|\d+\s+\d+\s*/\s*\d+|\d+\s*/\s*\d+"  # mixed numbers and fractions
    r"|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}"  # 1.234,5
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d])|\d{1,3}(?:[ ']\d{3})+(?:[.,]\d+)?(?!\d)"  # 1,234.5  1 234.5
    r"|\d+,\d+|\d*\.\d+|\d+)"
)
_VALUE = re.compile(
    rf"(?P<sign>(?<![\w.)\]])[-+](?=\.?\d)|\b(?:minus|negative)\s+)?(?P<number>{_NUMBER})"
    r"(?:e(?P<e>[+-]?\d+)(?![a-z\d])|\s*[x×*]\s*10\s*\^?\s*\(?(?P<ten>-?\d+)\)?)?"
    rf"(?:\s*(?:±|\+/-|\+-)\s*{_NUMBER})?\s*\+?"
)
_RANGE = re.compile(r"\s*(?:-|to|or|until|till|through|\.\.\.?)\s*(?:(?:about|around|roughly)\s+)?")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(])|\n+|;\s")
_CUE = re.compile(
    r"=|≈|\b(?:total(?:l?ing)?(?: of)?|overall|altogether|so|thus|therefore|hence|gives|equals|comes to|results? in|which is|"
    r"that is|average(?:s|d|ing)?|finally)\b"
)
_AFTERTHOUGHT = re.compile(r"\b(?:in total|altogether|overall|in all|on average)\b")
_STANDS = re.compile(
    r"\b(?:not mov(?:e|ing)|n't mov(?:e|ing)|stationary|stands? still|standing still|remains? still|at rest|parked|no distance|"
    r"not travel|no movement|no motion)\b"
)
_NONE = re.compile(r"\b(?:none|never|no|not any|zero)\b")


@dataclass(frozen=True)
class Quantity:
    """A number, or a range of numbers, found in a text.

    Attributes:
        dimension: of `UNITS`, or "" where no unit stands beside it; "colon" for 2:30.
        low, high: in base units; equal where it is one number.
        start, end: where it stands in its text.
    """

    dimension: str
    low: float
    high: float
    start: int
    end: int


def parse_quantity(text: str, unit: str) -> float | None:
    """Return what a text says a quantity is, in `unit`; None where it does not say.

    The number with a unit of the right dimension counts; one without any unit is taken to be in `unit`. A range counts as
    its middle. Of several, that of the last sentence which has any, and in it the first after the last "in total", "so" or
    "=". What stands in parentheses, often the same in another unit, counts where nothing else does. An object that "does
    not move" travels 0.

    Args:
        text: a model's reply.
        unit: a name in `UNITS`.
    """
    dimension, size = UNITS[unit]
    chosen = _choose(text, dimension, size)
    if chosen is None:
        return None
    if dimension == "clock":
        return _hour(chosen)
    return (chosen.low + chosen.high) / 2 / size


def parse_interval(text: str, unit: str = "s") -> tuple[float, float] | None:
    """Return the interval of time that a text names, in `unit`, earlier end first; None where there is none.

    Understood are ranges ("from 2 to 4.5 s", "between 2 s and 4 s", "[2.0, 4.5]", "00:02-00:04") and exactly two times in one
    sentence ("starts at 2 s and ends at 4 s").
    """
    _, size = UNITS[unit]
    for sentence in reversed(_sentences(final_answer(text))):
        found = [item for item in _scan(sentence, "time") if item.dimension in ("time", "")]
        timed = [_sized(item, size) for item in found if item.dimension == "time"] or [_sized(item, size) for item in found]
        ranges = [item for item in timed if item.low != item.high]
        if not ranges and len(timed) != 2:
            ranges = [item for item in (_sized(item, size) for item in found) if item.low != item.high]
        if ranges:
            return min(ranges[0].low, ranges[0].high) / size, max(ranges[0].low, ranges[0].high) / size
        if len(found) == 2 and len(timed) < 2:
            timed = [_sized(item, size) for item in found]
        if len(timed) == 2:
            low, high = sorted(item.low / size for item in timed)
            return low, high
    return None


# -- choosing one of several ---------------------------------------------------------------------------------------------


def _choose(text: str, dimension: str, size: float) -> Quantity | None:
    sentences = _sentences(final_answer(text))
    found = [[item for item in _scan(sentence, dimension) if _fits(item, dimension)] for sentence in sentences]
    for wanted in (dimension, ""):
        told = [
            (sentence, [item for item in items if item.dimension == wanted])
            for sentence, items in zip(sentences, found, strict=True)
        ]
        told = [(sentence, items) for sentence, items in told if items]
        if told:
            bare = next((item for item in told if len(re.findall(r"[a-z]{2,}", item[0])) <= 3), None)
            sentence, items = bare if bare is not None and bare is told[0] else told[-1]
            return _sized(_of_sentence(sentence, items), size)
    lowered = " ".join(sentences)
    if (dimension in ("length", "speed") and _STANDS.search(lowered)) or (dimension == "count" and _NONE.search(lowered)):
        return Quantity(dimension, 0.0, 0.0, 0, 0)
    return None


def _fits(item: Quantity, dimension: str) -> bool:
    return item.dimension in (dimension, "")


def _of_sentence(sentence: str, items: list[Quantity]) -> Quantity:
    outside = [item for item in items if sentence[: item.start].count("(") <= sentence[: item.start].count(")")]
    items = outside or items
    for cue in reversed(list(_CUE.finditer(sentence))):
        after = [item for item in items if item.start >= cue.end()]
        if after:
            return after[0]
    for cue in reversed(list(_AFTERTHOUGHT.finditer(sentence))):
        before = [item for item in items if item.end <= cue.start()]
        if before:
            return before[-1]
    return items[0]


def _sized(item: Quantity, size: float) -> Quantity:
    """Give a number without a unit the unit that was asked for."""
    if item.dimension:
        return item
    return Quantity(item.dimension, item.low * size, item.high * size, item.start, item.end)


def _hour(item: Quantity) -> float | None:
    """Return the hour in (0, 12], the middle of a range the short way round; None where it is none."""
    if not (0 <= item.low <= 12.99 and 0 <= item.high <= 12.99):
        return None
    turn = (item.high - item.low + 6) % 12 - 6
    hour = (item.low + turn / 2) % 12
    return hour or 12.0


# -- finding them --------------------------------------------------------------------------------------------------------


def _sentences(text: str) -> list[str]:
    return [digits_for_words(part.strip().lower()) for part in _SENTENCE.split(text) if part.strip()]


def _scan(text: str, dimension: str) -> list[Quantity]:
    """Return all quantities of a text in order, ranges and compounds ("5 ft 6 in") joined."""
    found: list[tuple[Quantity, float]] = []  # with the size of its unit
    place = 0
    while (match := _VALUE.search(text, place)) is not None:
        place = match.end()
        told = _UNIT.match(text, match.end())
        name, size = _unit(told) if told else ("", 1.0)
        number = match["number"]
        value = _number(number, match)
        if ":" in number:
            value, name = _colon(number, dimension), "" if name in ("", "time", "clock") else name
            if name == "":
                name = dimension if dimension in ("clock", "time") else "colon"
            size = 1.0
        elif told:
            place = told.end()
        if value is not None and math.isfinite(value):
            found.append((Quantity(name, value * size, value * size, match.start(), place), size))
    return _join_ranges(text, _join_compounds(text, found))


def _join_compounds(text: str, found: list[tuple[Quantity, float]]) -> list[tuple[Quantity, float]]:
    """Join what counts in a smaller unit to what stands before it: "5 ft 6 in", "1 min and 30 s"."""
    joined: list[tuple[Quantity, float]] = []
    for item, size in found:
        if joined and item.dimension in ("length", "time"):
            before, before_size = joined[-1]
            gap = text[before.end : item.start]
            smaller = before.dimension == item.dimension and size < before_size and 0 <= item.low < before_size
            if smaller and re.fullmatch(r"\s*,?\s*(?:and)?\s*", gap):
                total = before.low + item.low
                joined[-1] = (Quantity(item.dimension, total, total, before.start, item.end), size)
                continue
        joined.append((item, size))
    return joined


def _join_ranges(text: str, found: list[tuple[Quantity, float]]) -> list[Quantity]:
    """Join the ends of ranges; an end without a unit has that of the other."""
    joined: list[Quantity] = []
    size_before = 1.0
    for item, size in found:
        before = joined[-1] if joined else None
        if before is None or before.low != before.high or not _spans(text, before, item):
            joined.append(item)
        elif before.dimension == item.dimension:
            joined[-1] = Quantity(item.dimension, before.low, item.low, before.start, item.end)
        elif before.dimension == "":
            joined[-1] = Quantity(item.dimension, before.low * size, item.low, before.start, item.end)
        elif item.dimension == "":
            joined[-1] = Quantity(before.dimension, before.low, item.low * size_before, before.start, item.end)
        else:
            joined.append(item)
        size_before = size
    return joined


def _spans(text: str, before: Quantity, item: Quantity) -> bool:
    """Whether two numbers are the ends of a range: "2-4", "2 to 4", "between 2 and 4", "[2, 4]"."""
    gap, ahead = text[before.end : item.start], text[: before.start]
    if _RANGE.fullmatch(gap):
        return True
    if re.search(r"\b(?:between|from)\s+(?:about\s+|around\s+|roughly\s+)?$", ahead):
        return re.fullmatch(r"\s*(?:and|,)\s*(?:about\s+|around\s+|roughly\s+)?", gap) is not None
    return ahead.rstrip().endswith(("[", "(")) and gap.strip() == "," and text[item.end :].lstrip()[:1] in ("]", ")")


def _unit(told: re.Match[str]) -> tuple[str, float]:
    """Return the dimension of a unit and its size in base units."""
    kind = str(told.lastgroup)
    words = told[kind]
    if kind == "feet":
        return "length", UNITS["ft"][1]
    if kind == "inches":
        return "length", UNITS["in"][1]
    if kind == "other":
        return UNITS[_named(_OTHERS, words)]
    if kind == "time":
        return UNITS[_named(_TIMES, words)]
    if kind == "length":
        return UNITS["in" if words == "in" else _named(_LENGTHS, words)]
    if kind == "area":
        side = UNITS[_named(_LENGTHS, re.sub(r"^(?:square\s+|sq\.?\s*)|\s*(?:\^\s*2|squared|2)$", "", words))][1]
        return "area", side**2
    if kind == "speed":
        for name, pattern in _SPEEDS:
            if re.fullmatch(pattern, words):
                return UNITS[name]
        return "speed", _ratio(words, 1)
    return "acceleration", _ratio(words, 2)


def _ratio(words: str, power: int) -> float:
    """Return how many m/s or m/s2 "km/h", "feet per second squared" or "m s^-1" is."""
    parts = [part for part in re.split(_PER + r"|\s+", re.sub(r"\^?-?[12]\s*$|\s*squared$", "", words)) if part]
    if len(parts) == 1:  # "ms^-1" has no space to split at
        parts = [parts[0][:-1], parts[0][-1]]
    length = UNITS[_named(_LENGTHS, " ".join(parts[:2]) if parts[0] == "nautical" else parts[0])][1]
    times = [UNITS[_named(_TIMES, part)][1] for part in parts[2 if parts[0] == "nautical" else 1 :]]
    return length / (math.prod(times) if len(times) == power else times[0] ** power)


def _named(units: tuple[tuple[str, str], ...], words: str) -> str:
    return next(name for name, pattern in units if re.fullmatch(pattern, words.strip()))


def _number(text: str, match: re.Match[str]) -> float | None:
    if ":" in text:
        return None
    text = text.strip()
    if "/" in text:
        *whole, fraction = text.replace(" /", "/").replace("/ ", "/").split()
        above, below = fraction.split("/")
        value = float(above) / float(below) if float(below) else math.nan
        value += float(whole[0]) if whole else 0.0
    else:
        value = float(_decimal(text))
    power = match["e"] or match["ten"]
    value *= 10.0 ** int(power) if power and abs(int(power)) < 100 else 1.0
    return -value if (match["sign"] or "+").strip() != "+" else value


def _decimal(text: str) -> str:
    """Return a number with a point, and no separators of thousands.

    One comma before three digits separates thousands, unless a zero stands before it; any other single comma is a decimal
    comma. One point is a decimal point; several points, or points before a comma, separate thousands.
    """
    text = re.sub(r"[ ']", "", text)
    if text.count(".") > 1 or (0 <= text.find(".") < text.find(",")):
        return text.replace(".", "").replace(",", ".")
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text):
        return text.replace(",", "")
    return text.replace(",", ".")


def _colon(text: str, dimension: str) -> float:
    """Return 2:30 as 2.5 hours of the clock, or as 150 seconds."""
    parts = [float(part) for part in text.split(":")]
    if dimension == "clock":
        return parts[0] + parts[1] / 60
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
