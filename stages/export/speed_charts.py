"""Speed over time with its 90 % band, one small chart for the camera and for each object, as inline SVG."""

from typing import Any

import numpy as np
from markupsafe import Markup

from stages.export.shown import ShownTrack, Units, figure, nice_step

_WIDTH, _HEIGHT = 380.0, 168.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 10.0, 12.0, 26.0
_GAP_STEPS = 1.6  # a line breaks where states are further apart than this many grid steps


def draw_speed_charts(
    shown: list[ShownTrack], duration_s: float, grid_s: float, units: Units
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the charts (name, palette, drawing) and, for the readouts, the states by track id in displayed units.

    All charts share their axes, so that heights can be compared. Bands that would flatten everything else are cut off at
    the top of the chart.
    """
    with_speed = [item for item in shown if any(row["speed_p50"] is not None for row in item.states)]
    if not with_speed:
        return [], {}
    top = _top_speed(with_speed, units)
    charts = [
        {
            "id": item.track_id,
            "name": item.name,
            "palette": item.palette,
            "drawing": _draw_chart(item, duration_s, top, grid_s, units),
        }
        for item in with_speed
    ]
    readouts = {
        str(item.track_id): [
            [
                round(row["time_s"], 3),
                *(_rounded(row[name], units) for name in ("speed_p50", "speed_p5", "speed_p95")),
                row["state"],
            ]
            for row in item.states
        ]
        for item in with_speed
    }
    return charts, readouts


def _rounded(value: float | None, units: Units) -> float | None:
    """Return a speed as the readout shows it: whole km/h from 10 on, tenths below; three digits of scene units."""
    if value is None:
        return None
    speed = value * units.speed_factor
    return float(f"{speed:.3g}") if not units.metric else float(round(speed)) if speed >= 10 else round(speed, 1)


def _top_speed(shown: list[ShownTrack], units: Units) -> float:
    """Return the top of the speed axis: all medians fit, and nine of ten upper bounds."""
    rows = [row for item in shown for row in item.states if row["speed_p50"] is not None]
    middle = max(row["speed_p50"] for row in rows)
    upper = np.percentile([row["speed_p95"] if row["speed_p95"] is not None else row["speed_p50"] for row in rows], 90)
    top = max(middle * 1.08, min(float(upper), middle * 1.6)) * units.speed_factor
    step = nice_step(max(top, 1e-6), 4)
    return float(np.ceil(top / step - 1e-9) * step) or step


def _draw_chart(item: ShownTrack, duration_s: float, top: float, grid_s: float, units: Units) -> Markup:
    x_scale = (_WIDTH - _LEFT - _RIGHT) / max(duration_s, 1e-6)
    y_scale = (_HEIGHT - _TOP - _BOTTOM) / top
    base = _HEIGHT - _BOTTOM

    def place(time_s: float, speed: float) -> str:
        return f"{_LEFT + time_s * x_scale:.1f} {base - min(speed * units.speed_factor, top * 1.04) * y_scale:.1f}"

    bands, lines = [], []
    for run in _runs(item.states, grid_s):
        lines.append("M" + "L".join(place(row["time_s"], row["speed_p50"]) for row in run) + ("h.1" if len(run) == 1 else ""))
        banded = [row for row in run if row["speed_p5"] is not None and row["speed_p95"] is not None]
        if banded:
            upper = [place(row["time_s"], row["speed_p95"]) for row in banded]
            lower = [place(row["time_s"], row["speed_p5"]) for row in reversed(banded)]
            bands.append("M" + "L".join(upper + lower) + "Z")
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="Speed of {} over time in {}">{}'
        '<path class="band" d="{}"/><path class="median" d="{}"/>'
        '<line class="cursor" data-x0="{:.1f}" data-kx="{:.4f}" y1="{:.0f}" y2="{:.0f}"/></svg>'
    ).format(
        "ego" if item.palette < 0 else f"k{item.palette}",
        _WIDTH,
        _HEIGHT,
        item.name,
        units.speed,
        _draw_axes(duration_s, top, x_scale, y_scale, base, units),
        "".join(bands),
        "".join(lines),
        _LEFT,
        x_scale,
        _TOP,
        base,
    )


def _runs(states: list[dict[str, Any]], grid_s: float) -> list[list[dict[str, Any]]]:
    """Split states into stretches without a gap."""
    runs: list[list[dict[str, Any]]] = []
    for row in states:
        if row["speed_p50"] is None:
            continue
        if not runs or row["time_s"] - runs[-1][-1]["time_s"] > _GAP_STEPS * grid_s:
            runs.append([])
        runs[-1].append(row)
    return runs


def _draw_axes(duration_s: float, top: float, x_scale: float, y_scale: float, base: float, units: Units) -> Markup:
    parts = []
    step = nice_step(top, 4)
    for index in range(round(top / step) + 1):
        y = base - index * step * y_scale
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(_LEFT, y, _WIDTH - _RIGHT))
        parts.append(Markup('<text class="tick y" x="{}" y="{:.1f}">{}</text>').format(_LEFT - 6, y + 4, figure(index * step)))
    step = nice_step(duration_s, 5)
    for index in range(int(duration_s / step + 1e-6) + 1):
        x = _LEFT + index * step * x_scale
        parts.append(Markup('<text class="tick x" x="{:.1f}" y="{:.1f}">{}</text>').format(x, base + 16, f"{index * step:g}"))
    parts.append(Markup('<text class="tick unit" x="{}" y="{:.1f}">s</text>').format(_WIDTH - _RIGHT, base + 16))
    return Markup("").join(parts)
