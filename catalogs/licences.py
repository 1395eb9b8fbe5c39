"""What licences allow, by SPDX identifier; what nobody knows allows nothing but looking.

An expression ("CC-BY-4.0 AND (MIT OR Apache-2.0)") is read by the library license-expression, which knows SPDX's list.
This is bookkeeping, not legal advice: it sorts what people said of their sources, it does not read contracts.
"""

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from license_expression import ExpressionError, ExpressionParseError, Licensing, get_spdx_licensing

from schemas.errors import WorldlineError

UNKNOWN = "unknown"  # of a source without terms, and of whatever was made from it


@dataclass(frozen=True)
class Permissions:
    """What a licence allows, and what it asks for in return.

    Attributes:
        commercial: use in a product or service that earns money.
        derivatives: making something from it and passing that on, which labels and reconstructions are.
        redistribution: passing it on unchanged.
        attribution: its authors must be named.
        share_alike: what is made from it goes under the same licence.
        restricted_use: some uses are forbidden by an annex, also to those to whom it is passed on.
    """

    commercial: bool = True
    derivatives: bool = True
    redistribution: bool = True
    attribution: bool = True
    share_alike: bool = False
    restricted_use: bool = False


# What `export --licence USE` asks of every licence: a dataset is always passed on, and most of it is derived.
USES = {
    "commercial": ("commercial", "derivatives"),
    "redistribution": ("redistribution", "derivatives"),
}

_FREE = Permissions(attribution=False)
_NOTICE = Permissions()
_COPYLEFT = Permissions(share_alike=True)
_RAIL = Permissions(share_alike=True, restricted_use=True)
_RESEARCH = Permissions(commercial=False, redistribution=False, share_alike=True)
_KNOWN = {
    **dict.fromkeys(("CC0-1.0", "PDDL-1.0", "Unlicense", "0BSD", "MIT-0", "CC-PDDC", "DL-DE-ZERO-2.0"), _FREE),
    **dict.fromkeys(("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "ISC", "Zlib"), _NOTICE),
    **dict.fromkeys(("BSL-1.0", "ODC-By-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "DL-DE-BY-2.0"), _NOTICE),
    **dict.fromkeys(("ODbL-1.0", "CDLA-Sharing-1.0", "MPL-2.0", "LGPL-3.0-only", "LGPL-3.0-or-later"), _COPYLEFT),
    **dict.fromkeys(("GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later"), _COPYLEFT),
    **dict.fromkeys(("AGPL-3.0-only", "AGPL-3.0-or-later"), _COPYLEFT),
    "LicenseRef-Own": _FREE,  # whoever exports has all rights in it: footage of their own fleet, say
    "LicenseRef-OpenRAIL": _RAIL,
    "LicenseRef-OpenRAIL-M": _RAIL,
    "LicenseRef-CreativeML-OpenRAIL-M": _RAIL,
    "LicenseRef-CreativeML-OpenRAIL-PlusPlus-M": _RAIL,
    "LicenseRef-BigScience-OpenRAIL-M": _RAIL,
    "LicenseRef-BigScience-BLOOM-RAIL-1.0": _RAIL,
    "LicenseRef-Waymo-Open-Dataset": _RESEARCH,
}
_CREATIVE_COMMONS = re.compile(r"CC-BY(-NC)?(-SA|-ND)?-[1-4]\.\d(-[A-Z]{2,3})?")

# Names that people use for a licence: of model hubs, and of driving datasets for what they are published under.
_ALIASES = {
    "openrail": "LicenseRef-OpenRAIL",
    "openrail-m": "LicenseRef-OpenRAIL-M",
    "creativeml-openrail-m": "LicenseRef-CreativeML-OpenRAIL-M",
    "openrail++": "LicenseRef-CreativeML-OpenRAIL-PlusPlus-M",
    "creativeml-openrail++-m": "LicenseRef-CreativeML-OpenRAIL-PlusPlus-M",
    "bigscience-openrail-m": "LicenseRef-BigScience-OpenRAIL-M",
    "bigscience-bloom-rail-1.0": "LicenseRef-BigScience-BLOOM-RAIL-1.0",
    "cc0": "CC0-1.0",
    "own": "LicenseRef-Own",
    "nuscenes": "CC-BY-NC-SA-4.0",
    "argoverse-2": "CC-BY-NC-SA-4.0",
    "kitti": "CC-BY-NC-SA-3.0",
    "pandaset": "CC-BY-4.0",
    "waymo-open": "LicenseRef-Waymo-Open-Dataset",
}


@functools.cache
def _spdx() -> Licensing:
    return get_spdx_licensing()


def normalise(text: str) -> str:
    """Return a licence or licence expression as SPDX writes it.

    Args:
        text: SPDX identifiers in any case, joined by AND, OR, WITH and brackets; "LicenseRef-NAME" for one that SPDX does
            not list; or one of the names that model hubs and driving datasets go by ("openrail++", "nuscenes").

    Raises:
        WorldlineError: if it is not an expression, or names a licence that SPDX does not list.
    """
    text = text.strip()
    if alias := _ALIASES.get(text.lower()):
        return alias
    try:
        expression = _spdx().parse(text)
    except (ExpressionError, ExpressionParseError):
        expression = None
    if expression is None:
        raise WorldlineError(f"{text!r} is not a licence: give an SPDX identifier such as CC-BY-4.0, or LicenseRef-NAME")
    for name in _spdx().unknown_license_keys(expression):
        if not re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", name):
            by_lower = {key.lower(): key for key in [*_spdx().known_symbols, *_ALIASES]}
            near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
            hint = f"did you mean {by_lower[near[0]]}? Else write" if near else "write"
            own = re.sub(r"[^A-Za-z0-9.-]+", "-", name.removeprefix("LicenseRef-"))
            raise WorldlineError(f"{name} is not a licence that SPDX lists: {hint} LicenseRef-{own} for terms of their own")
    return str(expression.render())


def permissions(licence: str) -> Permissions | None:
    """Return what one licence allows, or None where that is not known."""
    if parts := _CREATIVE_COMMONS.fullmatch(licence):
        kind = parts.group(2)
        return Permissions(commercial=parts.group(1) is None, derivatives=kind != "-ND", share_alike=kind == "-SA")
    return _KNOWN.get(licence)


def allows(expression: str, use: str) -> bool:
    """Return whether a normalised licence expression allows a use of `USES`; unknown never does.

    Of licences joined by OR the better one may be chosen; an exception (WITH) only ever adds permissions.
    """
    if expression == UNKNOWN:
        return False
    needed = USES[use]

    def allowed(node: Any) -> bool:
        if isinstance(node, _spdx().AND):
            return all(allowed(part) for part in node.args)
        if isinstance(node, _spdx().OR):
            return any(allowed(part) for part in node.args)
        name = getattr(node, "license_symbol", node).key
        known = permissions(name)
        return known is not None and all(getattr(known, item) for item in needed)

    return allowed(_spdx().parse(expression))


def joined(expressions: Iterable[str]) -> str:
    """Return one expression for what came from several sources: all of their licences hold at once.

    "CC0-1.0" where there are none; "unknown" stays visible beside what is known.
    """
    distinct = sorted(set(expressions))
    if len(distinct) < 2:
        return distinct[0] if distinct else "CC0-1.0"
    return " AND ".join(f"({item})" if " OR " in item and not item.startswith("(") else item for item in distinct)
