"""The lineage of a dataset as a layered graph, as inline SVG.

One card per execution (stage, version, key) with a row per output (kind, digest); an edge runs from an output to every
card that took it. Layers are longest distances from the sources (Sugiyama, Tagawa and Toda 1981, with one shared chain
of bends per output, so that ten readers of one clip are one line that forks), and barycentres order each layer.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from schemas.reports import Lineage

_CARD_WIDTH, _HEAD, _ROW, _GAP_X, _GAP_Y, _BEND_WIDTH, _MARGIN = 226.0, 46.0, 19.0, 24.0, 56.0, 8.0, 12.0
_SWEEPS = 12


@dataclass
class _Node:
    """A card, or a bend of an edge that passes a layer (`card` is None)."""

    layer: int
    order: float
    card: dict[str, Any] | None
    before: list[int] = dataclasses.field(default_factory=list)
    after: list[int] = dataclasses.field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    bottom: float = 0.0  # of the layer

    @property
    def width(self) -> float:
        return _CARD_WIDTH if self.card else _BEND_WIDTH

    @property
    def height(self) -> float:
        return (_HEAD if self.card["stage"] else 8.0) + _ROW * len(self.card["outputs"]) + 6 if self.card else 0.0


def list_executions(lineage: Lineage) -> list[dict[str, Any]]:
    """Return the executions with their configs for people, inputs and outputs, sources first and consumers later."""
    cards: dict[str, dict[str, Any]] = {
        row["execution_key"]: {**row, "inputs": [], "outputs": []}
        for row in sorted(lineage.nodes.to_pylist(), key=lambda row: (row["stage"], row["execution_key"]))
    }
    edges = sorted(lineage.edges.to_pylist(), key=lambda row: (row["execution_key"], row["slot"], row["digest"]))
    made = {row["digest"] for row in edges if row["direction"] == "out"}
    for row in edges:
        card = cards.get(row["execution_key"])
        if card is None:
            continue
        card["inputs" if row["direction"] == "in" else "outputs"].append(row)
        if row["direction"] == "in" and row["digest"] not in made:  # given from outside: a card without a stage
            given = {"execution_key": row["digest"], "stage": "", "version": 0, "config": "{}", "seed": 0, "inputs": []}
            cards.setdefault("given " + row["digest"], {**given, "outputs": [row]})
    layers = _layers(list(cards.values()))
    ordered = sorted(cards.values(), key=lambda card: (layers[id(card)], card["stage"], card["execution_key"]))
    return [{**card, "layer": layers[id(card)], "options": _options(card["config"])} for card in ordered]


def _options(config: str) -> list[tuple[str, str]]:
    """Return a config's fields as text, nested ones with dotted names."""
    try:
        parsed = json.loads(config)
    except json.JSONDecodeError:
        return [("config", config)]
    flat: list[tuple[str, str]] = []

    def flatten(name: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, item in sorted(value.items()):
                flatten(f"{name}.{key}" if name else key, item)
        else:
            flat.append((name or "config", value if isinstance(value, str) else json.dumps(value)))

    flatten("", parsed) if parsed else None
    return flat


def _layers(cards: list[dict[str, Any]]) -> dict[int, int]:
    """Return the longest distance of each card (by identity) from a source."""
    maker = {row["digest"]: card for card in cards for row in card["outputs"]}
    layers: dict[int, int] = {}

    def layer(card: dict[str, Any], below: frozenset[int]) -> int:
        if id(card) not in layers:
            above = [maker[row["digest"]] for row in card["inputs"] if row["digest"] in maker]
            above = [other for other in above if id(other) not in below]  # an output equal to an input is no cycle
            layers[id(card)] = 1 + max((layer(other, below | {id(card)}) for other in above), default=-1)
        return layers[id(card)]

    for card in cards:
        layer(card, frozenset({id(card)}))
    return layers


def draw_lineage(executions: list[dict[str, Any]]) -> Markup:
    """Return the graph of `list_executions`."""
    nodes, links = _build_nodes(executions)
    layers = _order_layers(nodes)
    width = _place(nodes, layers)
    height = max((node.y + node.height for node in nodes), default=0.0) + _MARGIN
    edges = Markup("").join(_draw_link(nodes, first, second, digest) for first, second, digest in links)
    cards = Markup("").join(_draw_card(node) for node in nodes if node.card)
    return Markup(
        '<svg id="lineage" class="drawing lineage" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" '
        'aria-label="Lineage: {} executions and what they made">{}{}</svg>'
    ).format(width, height, width, sum(1 for item in executions if item["stage"]), edges, cards)


def _build_nodes(executions: list[dict[str, Any]]) -> tuple[list[_Node], list[tuple[int, int, str]]]:
    """Return nodes with their neighbours, and links (from, to, digest) between nodes of neighbouring layers."""
    nodes = [_Node(card["layer"], index, card) for index, card in enumerate(executions)]
    maker = {row["digest"]: index for index, card in enumerate(executions) for row in card["outputs"]}
    bends: dict[tuple[str, int], int] = {}
    links: dict[tuple[int, int, str], None] = {}
    for index, card in enumerate(executions):
        for digest in sorted({row["digest"] for row in card["inputs"]}):
            current = maker.get(digest, index)
            if nodes[current].layer >= card["layer"]:
                continue
            for between in range(nodes[current].layer + 1, card["layer"]):
                if (digest, between) not in bends:
                    nodes.append(_Node(between, len(nodes), None))
                    bends[digest, between] = len(nodes) - 1
                links[current, bends[digest, between], digest] = None
                current = bends[digest, between]
            links[current, index, digest] = None
    for first, second, _ in links:
        nodes[first].after.append(second)
        nodes[second].before.append(first)
    return nodes, list(links)


def _order_layers(nodes: list[_Node]) -> list[list[int]]:
    """Order every layer by the mean place of its neighbours, down and up in turn."""
    count = max((node.layer for node in nodes), default=-1) + 1
    layers = [[index for index, node in enumerate(nodes) if node.layer == layer] for layer in range(count)]
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            for index in layer:
                neighbours = nodes[index].before if down else nodes[index].after
                if neighbours:
                    nodes[index].order = sum(nodes[other].order for other in neighbours) / len(neighbours)
            layer.sort(key=lambda index: (nodes[index].order, index))
            for place, index in enumerate(layer):
                nodes[index].order = (place + 0.5) / len(layer)
    return layers


def _place(nodes: list[_Node], layers: list[list[int]]) -> float:
    """Set x (centre) and y (top) of every node and return the width of the graph.

    Nodes start side by side and are then drawn towards the mean of their neighbours as far as the order allows.
    """

    def spread(layer: list[int]) -> float:
        return sum(nodes[index].width for index in layer) + _GAP_X * (len(layer) - 1)

    width = max((spread(layer) for layer in layers), default=_CARD_WIDTH) + 2 * _MARGIN
    y = _MARGIN
    for layer in layers:
        x = (width - spread(layer)) / 2
        for index in layer:
            nodes[index].x, nodes[index].y = x + nodes[index].width / 2, y
            x += nodes[index].width + _GAP_X
        bottom = y + max(nodes[index].height for index in layer)
        for index in layer:
            nodes[index].bottom = bottom
        y = bottom + _GAP_Y
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _settle(nodes, layer, width)
    return width


def _settle(nodes: list[_Node], layer: list[int], width: float) -> None:
    wanted = []
    for index in layer:
        around = nodes[index].before + nodes[index].after
        wanted.append(sum(nodes[other].x for other in around) / len(around) if around else nodes[index].x)
    left, placed = _MARGIN, []
    for index, target in zip(layer, wanted, strict=True):  # push to the right where nodes would overlap
        placed.append(max(target, left + nodes[index].width / 2))
        left = placed[-1] + nodes[index].width / 2 + _GAP_X
    right = width - _MARGIN
    for slot in range(len(layer) - 1, -1, -1):  # and back to the left where they left the drawing
        half = nodes[layer[slot]].width / 2
        placed[slot] = min(placed[slot], right - half)
        right = placed[slot] - half - _GAP_X
    for index, x in zip(layer, placed, strict=True):
        nodes[index].x = x


def _draw_link(nodes: list[_Node], first: int, second: int, digest: str) -> Markup:
    start, end = nodes[first], nodes[second]
    x0, y0 = start.x, start.y + start.height  # straight down to the end of its layer, so that no card is crossed
    if start.card:
        slot = [row["digest"] for row in start.card["outputs"]].index(digest)
        x0 += (slot - (len(start.card["outputs"]) - 1) / 2) * min(26.0, _CARD_WIDTH / (len(start.card["outputs"]) + 1))
    x1, y1 = end.x, end.y
    if end.card:
        taken = sorted({row["digest"] for row in end.card["inputs"]})
        x1 += (taken.index(digest) - (len(taken) - 1) / 2) * min(22.0, _CARD_WIDTH / (len(taken) + 1))
    middle = (start.bottom + y1) / 2
    return Markup(
        '<path class="edge" data-digest="{}" d="M{:.1f} {:.1f}V{:.1f}C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}"/>'
    ).format(digest[:12], x0, y0, start.bottom, x0, middle, x1, middle, x1, y1)


def _draw_card(node: _Node) -> Markup:
    card = node.card
    assert card is not None
    options = "\n".join(f"{name} = {value}" for name, value in card["options"]) or "no options"
    title = f"{card['stage']} version {card['version']}, seed {card['seed']}\n{options}" if card["stage"] else "given"
    head = (
        Markup('<text class="stage" x="12" y="20">{}</text><text class="key" x="12" y="36">version {} · {}</text>').format(
            card["stage"], card["version"], card["execution_key"][:10]
        )
        if card["stage"]
        else Markup("")
    )
    rows = []
    for slot, row in enumerate(card["outputs"]):
        y = (_HEAD if card["stage"] else 8.0) + slot * _ROW
        rows.append(
            Markup(
                '<g class="output" data-digest="{}"><rect x="6" y="{:.0f}" width="{:.0f}" height="16" rx="3"/>'
                '<text x="12" y="{:.0f}">{}</text><text class="digest" x="{:.0f}" y="{:.0f}">{}</text>'
                "<title>{} {}</title></g>"
            ).format(
                row["digest"][:12],
                y,
                _CARD_WIDTH - 12,
                y + 12,
                row["kind"],
                _CARD_WIDTH - 12,
                y + 12,
                row["digest"][:10],
                row["kind"],
                row["digest"],
            )
        )
    return Markup(
        '<g class="card" data-takes="{}" transform="translate({:.1f} {:.1f})"><title>{}</title>'
        '<rect class="body" width="{:.0f}" height="{:.0f}" rx="6"/>{}{}</g>'
    ).format(
        " ".join(sorted({row["digest"][:12] for row in card["inputs"]})),
        node.x - _CARD_WIDTH / 2,
        node.y,
        title,
        _CARD_WIDTH,
        node.height,
        head,
        Markup("").join(rows),
    )
