"""What a model finally says: its reasoning, markup and typography taken away."""

# ruff: noqa: RUF001  (signs that people write are told apart here)

import json
import re
import unicodedata

_SUPERSCRIPTS = str.maketrans({"⁻": "^-", "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3"})
_FRACTIONS = {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⅛": " 1/8"}
_SIGNS = str.maketrans({"−": "-", "‐": "-", "‑": "-", "–": "-", "—": "-", "’": "'", "‘": "'", "`": "'", "´": "'", "′": "'",
                        "“": '"', "”": '"', "″": '"', "\u202f": " ", "\u00a0": " ", "\u2009": " "})  # fmt: skip
_LATEX = (
    (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2"),
    (r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}", r" \1 "),
    (r"\^\{?\\circ\}?", "°"),
    (r"\\(?:approx|sim)\b", " about "),
    (r"\\times\b", "×"),
    (r"\\pm\b", "±"),
    (r"\\[,;:! ]|[$~]|\\[()\[\]]", " "),
    (r"\^\{([^{}]*)\}", r"^\1"),
)
_MARK = re.compile(
    r"(?:final\s+answer|(?:the\s+|my\s+)?(?:correct\s+)?(?:answer|option|choice))"
    r"\s*(?:(?:is|would be|must be)\s*:?|[:=])\s*(?=\S)",
    re.IGNORECASE,
)


def final_answer(text: str) -> str:
    r"""Return the part of a reply that states its answer, as plain text.

    A reply may think aloud (`<think>`), frame its answer (`<answer>`, `\boxed{}`, `####`, a JSON object with "answer") or
    announce it ("the answer is ..."); what comes last counts. Without any of these, it is the whole reply. Dashes, quotes,
    spaces, fractions, superscripts and LaTeX become plain signs; the case of letters is kept.
    """
    text = re.sub(r"<think(?:ing)?>.*?</think(?:ing)?>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)[-1]
    text = _plain(_framed(text)).strip()
    marks = list(_MARK.finditer(text))
    if marks:
        text = text[marks[-1].end() :]
    return re.sub(r"[ \t]+", " ", text).strip()


def _framed(text: str) -> str:
    """Return what stands in the last frame, if there is any."""
    tagged = re.findall(r"<answer>(.*?)(?:</answer>|$)", text, flags=re.DOTALL | re.IGNORECASE)
    if tagged:
        return str(tagged[-1])
    place = text.rfind("\\boxed{")
    if place >= 0:
        return _in_braces(text, place + len("\\boxed{"))
    if "####" in text:
        return text.rpartition("####")[2]
    if text.strip().startswith("{"):
        try:
            held = json.loads(text)
        except ValueError:
            return text
        named = [held[name] for name in ("answer", "final_answer", "prediction", "response", "value") if name in held]
        if named:
            return str(named[0])
    return text


def _in_braces(text: str, start: int) -> str:
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:]


def _plain(text: str) -> str:
    for sign, spelled in _FRACTIONS.items():
        text = text.replace(sign, spelled)
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS).translate(_SUPERSCRIPTS)).translate(_SIGNS)
    text = text.replace("^-^", "^-")
    for pattern, replacement in _LATEX:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"\*\*|__|(?<![\w])[*_](?=\w)|(?<=\w)[*_](?!\w)", "", text)
    return re.sub(r'(?<![\d\'])"([^"]*)"', r"\1", text)
