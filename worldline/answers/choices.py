"""Options, words and names in free text: which of a few known answers a reply gives."""

import re
from collections.abc import Mapping

from worldline.answers.final_answer import final_answer
from worldline.answers.quantities import UNITS, parse_quantity

# What a reply may say, by the word that it means. Earlier patterns win where two overlap.
_DIRECTIONS = {
    "none": r"(?:not|n't) (?:really )?mov\w*(?! (?:to|towards?|in|left|right|away|closer))|(?:no|without) (?:movement|motion)|"
    r"not at all|stationary|static|parked|nowhere|"
    r"(?:stands?|standing|stays?|remains?|sits?|keeps?) (?:still|in place|put|there)|still|at rest|motionless",
    "toward": r"towards?(?: the (?:camera|viewer|observer))?|approach\w*|(?:comes?|coming|gets?|getting|moves?|moving) "
    r"(?:closer|nearer)|closer|nearer|forward to the camera",
    "away": r"away(?: from(?: the| it)?(?: camera| viewer)?)?|reced\w*|(?:further|farther)(?: away| off)?|departing",
    "left": r"left(?:wards?|-hand side| side)?",
    "right": r"right(?:wards?|-hand side| side)?",
}
_RELATIONS = {
    "opposite": r"oppos\w*|oncoming|(?:other|contrary|reverse) (?:way|direction)s?|against each other|antiparallel",
    "crossing": r"cross\w*|perpendicular\w*|(?:at )?right angles?|across|orthogonal\w*",
    "same": r"same|parallel|alike|together|identical",
}
_YES_NO = {
    "no": r"no|nope|not|n't|false|incorrect|never|neither|none",
    "yes": r"yes|yeah|yep|true|correct|indeed|certainly|affirmative|(?:it|they|both) (?:is|are|do|does|was|were|did)(?! \|)",
}
_VOCABULARIES = (_DIRECTIONS, _RELATIONS)
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\brather than|\binstead of|\bno longer|\bneither)"
    r"(?:\s+(?:to|the|in|a|its|moving|going|heading|move|go|towards?))*\s*$"
)
_LETTER = (
    r"^\(?([A-Z])\)?\s*[.):,]?\s*$",  # B   (B)   B.
    r"^\(?([A-Z])[).:]\s",  # B. left
    r"^([A-Z])\s*[-,]\s",  # B - left
    r"\b(?i:option|choice|answer|letter)\s*(?:is\s*|:\s*)?\(?([A-Z])\)?(?![\w'])",
    r"\(([A-Z])\)",
    r"\b(?i:choose|pick|select|is|be)\s+([B-Z])\b(?![\w'])",
    r"(?:^|\s)([B-Z])\.?$",
)


def parse_choice(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a reply chooses, by letter or by text; None where it names none, or several.

    Args:
        text: a model's reply.
        options: texts by letter.
    """
    said = final_answer(text)
    several = re.search(r"(?<!\w)\(?([A-Z])\)?(?: or | and |/|, ?)\(?([A-Z])\)?(?!\w)", said)
    if several and several[1] in options and several[2] in options:
        return None
    for pattern in _LETTER:
        letters = {letter for letter in re.findall(pattern, said) if letter in options}
        if letters:
            return letters.pop() if len(letters) == 1 else None
    lone = re.fullmatch(r"\(?([a-z])\)?[.)]?", said.strip())
    if lone and lone[1].upper() in options:
        return lone[1].upper()
    for vocabulary in _option_vocabularies(options):
        word = _meaning(said, vocabulary)
        letters = {letter for letter, option in options.items() if word is not None and _meaning(option, vocabulary) == word}
        if letters:
            return _only(letters)
    return _only(_named_options(said, options)) or _by_number(said, options)


def _option_vocabularies(options: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Return the vocabularies in which every option, or all but one, means something of its own."""
    if {_simple(option) for option in options.values()} >= {"yes", "no"}:
        return [_YES_NO]
    found: list[Mapping[str, str]] = []
    for vocabulary in _VOCABULARIES:
        words = [_meaning(option, vocabulary) for option in options.values()]
        known = [word for word in words if word is not None]
        if len(known) == len(set(known)) >= max(len(words) - 1, 1):
            found.append(vocabulary)
    return found


def _named_options(said: str, options: Mapping[str, str]) -> set[str]:
    """Return the letters of the options whose texts stand in a reply, longer texts first, each place used once."""
    lowered, found = _simple(said), set()
    for letter, option in sorted(options.items(), key=lambda item: -len(_simple(item[1]))):
        words = _simple(option)
        pattern = rf"(?<![\w-]){re.escape(words)}(?!\w)"
        if words and any(not _NEGATED.search(lowered[: place.start()]) for place in re.finditer(pattern, lowered)):
            found.add(letter)
            lowered = re.sub(pattern, "|", lowered)
    return found


def _by_number(said: str, options: Mapping[str, str]) -> str | None:
    for unit in UNITS:
        numbers = {letter: parse_quantity(option, unit) for letter, option in options.items()}
        value = parse_quantity(said, unit)
        if value is not None and all(number is not None for number in numbers.values()):
            near = {
                letter for letter, number in numbers.items() if number is not None and abs(number - value) <= 1e-3 * abs(value)
            }
            return _only(near)
    return None


def parse_word(text: str, word: str) -> str | None:
    """Return what a reply says of that which `word` is an answer to; None where it says nothing, or several things.

    Args:
        text: a model's reply.
        word: the true answer: "yes", "left", "away from the camera", "not moving", "same", ...

    Returns:
        A word in the same vocabulary; equal to `meaning(word)` where the reply is right.
    """
    said = final_answer(text)
    vocabulary = _vocabulary(word)
    if vocabulary is None:
        return _simple(word) if re.search(rf"(?<!\w){re.escape(_simple(word))}(?!\w)", _simple(said)) else _simple(said) or None
    if vocabulary is _YES_NO:
        first = re.match(r"\W*(yes|yeah|yep|no|nope|true|false)\b", said.lower())
        if first:
            return "no" if first[1] in ("no", "nope", "false") else "yes"
    return _meaning(said, vocabulary)


def meaning(word: str) -> str:
    """Return the word that stands for a true answer: "toward" for "toward the camera"."""
    vocabulary = _vocabulary(word)
    return (_meaning(word, vocabulary) if vocabulary is not None else None) or _simple(word)


def _vocabulary(word: str) -> Mapping[str, str] | None:
    if _simple(word) in ("yes", "no"):
        return _YES_NO
    return next((vocabulary for vocabulary in _VOCABULARIES if _meaning(word, vocabulary) is not None and len(word) < 40), None)


def _meaning(text: str, vocabulary: Mapping[str, str]) -> str | None:
    """Return the one word of a vocabulary that a text means; denied words ("not to the left") do not count."""
    lowered, found = _simple(text), set()
    for word, pattern in vocabulary.items():
        full = rf"(?<![\w-])(?:{pattern})(?![\w-])"
        for place in re.finditer(full, lowered):
            if vocabulary is _YES_NO or not _NEGATED.search(lowered[: place.start()]):
                found.add(word)
        lowered = re.sub(full, "|", lowered)
    return _only(found)


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None


def _simple(text: str) -> str:
    """Return lower case without punctuation at the ends or doubled spaces, "isn't" as "is n't", one word for clockwise not."""
    lowered = re.sub(r"\b(?:counter|anti)[ -]?clockwise\b", "counter-clockwise", re.sub(r"n't\b", " n't", text.lower()))
    return re.sub(r"\s+", " ", lowered).strip(" .,;:!?\"'\n")


# -- which of two --------------------------------------------------------------------------------------------------------

_SMALLER = re.compile(r"\b(?:slower|less|shorter|fewer|nearer|behind)\b")


def parse_object(text: str, objects: tuple[str, str]) -> str | None:
    """Return which of two objects a reply names as the one that was asked for; None where that is not clear.

    The objects are told apart by the words that only one of them has. "X is faster than Y" names X, "Y is slower than X"
    too; "the first" and "the former" mean the one that the question names first.

    Args:
        text: a model's reply.
        objects: referring phrases in the order of the question, such as "the red car in box [1, 2, 30, 40] at 0.5 s".
    """
    said = final_answer(text).lower()
    head, than, tail = said.partition(" than ")
    if than:
        said = tail if _SMALLER.search(head) else head
    for place, words in enumerate((r"first|former", r"second(?! \d)|latter")):
        if re.search(rf"\bthe (?:{words})(?: one| object| of)?\b", said) and not any(word in said for word in ("box", "seconds")):
            return objects[place]
    own = [_words(phrase) for phrase in objects]
    there = _words(said)
    shares = []
    for mine, other in (own, own[::-1]):
        special = mine - other
        shares.append(len(special & there) / len(special) if special else float(mine <= there and not (other - mine) & there))
    if shares[0] == shares[1]:
        return None
    return objects[0] if shares[0] > shares[1] else objects[1]


def compared_objects(question: str, answer: str) -> tuple[str, str] | None:
    """Return the two objects that a comparison names, in its order; None where the question is no comparison of `answer`.

    Args:
        question: in the wordings of `stages.label.wordings`: "... faster: X or Y?", "Compare X with Y: ...".
        answer: the one of them that is the true answer.
    """
    phrase = r"(the (?:[^:,?\[\]]+? in box \[[^\]]*\] at [\d.]+ s|(?:(?! or | and | with )[^:,?\[\]])+?))"
    link = r",? (?:or|and at|and|with) "
    known = re.escape(answer)
    after = re.search(rf"{known}{link}{phrase}(?=[?:.,]|\s(?:travel|move|from|between|during|cover|go)|$)", question)
    if after:
        return answer, after[1]
    before = re.search(rf"(?:^|[:,] |\b(?:[Oo]f|at|[Cc]ompare|[Dd]oes|[Dd]o|[Aa]re) ){phrase}{link}{known}", question)
    return (before[1], answer) if before else None


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+(?:\.\d+)?", text.lower())) - {"the", "a", "an", "in", "at", "s", "box", "one", "is", "it"}
