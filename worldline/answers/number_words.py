"""Numbers spelled in English words, turned into digits within a text."""

import re

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
)
_ROUND = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_NUMBERS.split())}
_TENS = {word: 10 * value for value, word in enumerate(_ROUND.split(), 2)}
_SCALES = {"hundred": 100, "dozen": 12, "thousand": 1000, "million": 1_000_000}
_PARTS = {"half": 0.5, "quarter": 0.25, "quarters": 0.25, "third": 1 / 3, "thirds": 1 / 3}
_LENGTH_WORDS = r"(?:kilo|centi|milli|deci)?met(?:er|re)|foot|yard|mile|inch"
# "one" is a number after these or at the start, and a pronoun after any other word ("the red one").
_BEFORE_ONE = (
    "about approximately around roughly nearly almost exactly only is was at of and from to between or than answer count by "
    "covers travels moves goes minus negative"
)


def digits_for_words(text: str) -> str:
    """Replace numbers in words by digits: "two and a half" by "2.5", "a hundred and five" by "105", "half a mile" by "0.5 mile".

    Args:
        text: in lower case.
    """
    text = re.sub(r"\b(?:a\s+)?couple\s+(?:of\s+)?", "2 ", text)
    text = _replace_cardinals(text)
    text = re.sub(r"\bhalf past (\d+)\b", r"\1:30", text)
    text = re.sub(rf"(?<!\ba )(?<!\d )\bhalf(?:\s+an?\b|(?=[\s-](?:{_LENGTH_WORDS})))", "0.5", text)
    text = re.sub(r"\b(?:(\d+)|an?)[\s-]+(half|quarters?|thirds?)\s+(?:of\s+)?an?\b(?!\w)", _part, text)
    text = re.sub(r"(?<=and )(?:(\d+)|an?)[\s-]+(half|quarters?|thirds?)\b", _part, text)
    text = re.sub(r"\b(?:(\d+)|an?)[\s-]+(half|quarters?)\b(?!\s+(?:of\b|past\b))", _part, text)
    text = re.sub(r"\b(\d+)\s+and\s+(0\.\d+)\b", _sum, text)
    text = re.sub(
        rf"\b(\d+|an?)\s+((?:{_LENGTH_WORDS}|second|minute|hour)e?s?)\s+and\s+(0\.\d+)\b(?!\s*[a-z])", _sum_of_unit, text
    )
    text = re.sub(rf"\ban?\s+(?=(?:{_LENGTH_WORDS})\b)", "1 ", text)
    return re.sub(r"\b(once|twice|thrice)\b", lambda found: {"once": "1", "twice": "2", "thrice": "3"}[found[1]] + " times", text)


def _part(found: re.Match[str]) -> str:
    return f"{int(found[1] or 1) * _PARTS[found[2]]:.6g}"


def _sum(found: re.Match[str]) -> str:
    return f"{float(found[1]) + float(found[2]):.9g}"


def _sum_of_unit(found: re.Match[str]) -> str:
    whole = 1.0 if found[1].startswith("a") else float(found[1])
    return f"{whole + float(found[3]):.9g} {found[2]}"


def _replace_cardinals(text: str) -> str:
    words = list(re.finditer(r"[a-z]+", text))
    told, place, index = [], 0, 0
    while index < len(words):
        count, value = _read_cardinal(text, words, index)
        if count:
            told += [text[place : words[index].start()], f"{value:.12g}"]
            place = words[index + count - 1].end()
        index += max(count, 1)
    return "".join([*told, text[place:]])


def _read_cardinal(text: str, words: list[re.Match[str]], first: int) -> tuple[int, float]:
    """Return how many words from `first` on spell one number, and the number; 0 words where there is none."""
    total, current, count, index = 0, 0, 0, first

    def joined(at: int) -> str:
        """The word at a place, or "" where something else than a space or hyphen stands before it."""
        if at >= len(words) or (at > first and not re.fullmatch(r"\s+|-", text[words[at - 1].end() : words[at].start()])):
            return ""
        return words[at].group()

    if joined(first) == "one" and not _is_number_one(text, words, first):
        return 0, 0.0
    while (word := joined(index)) != "":
        if word in _SMALL and (current % 100 == 0 or (_SMALL[word] < 10 and current % 10 == 0 and current % 100 >= 20)):
            if current % 100 == 0 and count and words[index - 1].group() in _SMALL:
                break  # "zero zero"
            current += _SMALL[word]
        elif word in _TENS and current % 100 == 0:
            current += _TENS[word]
        elif word in ("hundred", "dozen"):
            current = max(current, 1) * _SCALES[word]
        elif word in ("thousand", "million"):
            total, current = total + max(current, 1) * _SCALES[word], 0
        elif (word in ("a", "an") and not count and joined(index + 1) in _SCALES) or (
            word == "and" and count and words[index - 1].group() in _SCALES and joined(index + 1) in _SMALL | _TENS
        ):
            index += 1
            continue  # a word that belongs to the number only with the next one
        elif word == "point" and joined(index + 1) in _SMALL and (count or index == first):
            digits, index = "", index + 1
            while joined(index) in _SMALL and _SMALL[joined(index)] < 10:
                digits, index = digits + str(_SMALL[joined(index)]), index + 1
            return index - first, total + current + float(f"0.{digits or 0}")
        else:
            break
        index += 1
        count = index - first
    return count, float(total + current)


def _is_number_one(text: str, words: list[re.Match[str]], at: int) -> bool:
    if at == 0 or not re.fullmatch(r"\s+", text[words[at - 1].end() : words[at].start()]):
        return True
    return words[at - 1].group() in _BEFORE_ONE.split()
