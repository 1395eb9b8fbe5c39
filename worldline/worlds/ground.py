"""The street's surface: asphalt with paint, cracks and patches, pavement slabs and kerb stones.

Painted in street coordinates: s along the centre line, d to its left, both in metres.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from worldline.worlds.noise import blocks, fractal_noise, paint, tinted, to_bytes

KERB_M = 0.13


@dataclass(frozen=True)
class RoadLine:
    """A line painted along the street.

    Attributes:
        d_m: its place, to the left of the centre line.
        half_m: half its width.
        period_m, dash_m: a dash of `dash_m` begins every `period_m`; as long as the period for a line without gaps.
    """

    d_m: float
    half_m: float
    period_m: float
    dash_m: float


@dataclass(frozen=True)
class StreetPlan:
    """Cross-section and furniture of a street.

    Attributes:
        start_m, end_m: extent along the centre line.
        road_half_m: from the centre line to the kerb.  pavement_half_m: to the outer edge of the pavement.
        yard_half_m: to where the painted ground ends.
        crosswalk_m: where zebra crossings begin (each 3.2 m long).
        cross_street_m: centre of a crossing street, or None.  cross_half_m: half its width between kerbs.
        pixels_per_m: resolution of road and pavement.
        lines: painted along the street, except at junctions and crossings.
        bay_m: how far parking bays reach from the kerb; 0 where there are none.
        stop_m: how far the stop line before a zebra crossing reaches to the right of the centre line.
    """

    start_m: float
    end_m: float
    road_half_m: float
    pavement_half_m: float
    yard_half_m: float
    crosswalk_m: tuple[float, ...]
    cross_street_m: float | None
    cross_half_m: float
    pixels_per_m: float
    lines: tuple[RoadLine, ...]
    bay_m: float
    stop_m: float

    def closed_to_lines(self) -> list[tuple[float, float]]:
        """Return the stretches (from, to) of s without lines: the junction, and around every zebra crossing."""
        gaps = [(start - 1.5, start + 4.7) for start in self.crosswalk_m]
        if self.cross_street_m is not None:
            gaps.append((self.cross_street_m - self.cross_half_m - 3, self.cross_street_m + self.cross_half_m + 3))
        return sorted(gaps)


def single_lane_lines(road_half_m: float) -> tuple[RoadLine, ...]:
    """Return the lines of a street with one lane each way between parking bays: its middle and the edges of the bays."""
    bay = road_half_m - 2.15
    return RoadLine(0.0, 0.065, 6.0, 3.0), RoadLine(bay, 0.06, 1.6, 0.8), RoadLine(-bay, 0.06, 1.6, 0.8)


def paint_street(rng: np.random.Generator, plan: StreetPlan) -> np.ndarray:
    """Paint road, kerbs and pavement, `[h, w, 3]` float32 0..255; rows from the left pavement edge to the right one."""
    scale = plan.pixels_per_m
    shape = round(2 * plan.pavement_half_m * scale), round((plan.end_m - plan.start_m) * scale)
    d = (plan.pavement_half_m - (np.arange(shape[0], dtype=np.float32) + 0.5) / scale)[:, None]
    s = (plan.start_m + (np.arange(shape[1], dtype=np.float32) + 0.5) / scale)[None, :]
    image = _asphalt(rng, shape, scale)
    worn = np.clip(0.8 + 0.45 * fractal_noise(rng, shape, 0.5 * scale, 4), 0, 1)
    white = (218.0, 218.0, 208.0)
    open_road = np.ones_like(s, bool)
    for begin, end in plan.closed_to_lines():
        open_road &= (s <= begin) | (s >= end)
    for start in plan.crosswalk_m:
        bars = (s > start) & (s < start + 3.2) & (np.abs(d) < plan.road_half_m - 0.5) & (((d + 50.25) % 1.0) < 0.5)
        stop = (np.abs(s - start + 1.2) < 0.2) & (d < -0.15) & (d > -plan.stop_m)
        paint(image, (bars | stop) * worn, white)
    lines = (np.abs(s % 6.4) < 0.1) & (np.abs(d) > plan.road_half_m - plan.bay_m) & (np.abs(d) < plan.road_half_m - 0.2)
    for line in plan.lines:
        lines |= (np.abs(d - line.d_m) < line.half_m) & ((s % line.period_m) < line.dash_m)
    paint(image, lines * open_road * worn, white)
    _road_words(rng, image, plan, worn)
    _pavement(rng, image, plan, d, s)
    return image


def _asphalt(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Return asphalt with grain, tyre bands, repair patches, cracks, manholes and stains."""
    brightness = 1 + 0.10 * rng.standard_normal(shape, np.float32)
    brightness += 0.09 * fractal_noise(rng, shape, 4.0 * scale, 6) + 0.05 * fractal_noise(rng, shape, 0.12 * scale, 2)
    brightness += 0.05 * fractal_noise(rng, shape, 0.7 * scale, 3, stretch=14)
    marks = np.zeros(shape, np.uint8)
    for _ in range(int(shape[1] / scale / 5)):  # repair patches with a tar seam around them
        x, y = int(rng.integers(shape[1])), int(rng.integers(shape[0]))
        w, h = (rng.uniform(0.5, 3.2, 2) * scale).astype(int)
        brightness[y : y + h, x : x + w] *= rng.uniform(0.72, 1.22)
        cv2.rectangle(marks, (x, y), (x + int(w), y + int(h)), 150, max(1, int(0.03 * scale)))
    for _ in range(int(shape[1] / scale / 1.6)):  # cracks are random walks
        steps = rng.normal(0, 0.55, 40).cumsum() * 0.35 + rng.uniform(0, 2 * np.pi)
        walk = np.stack([np.cos(steps), np.sin(steps)], 1).cumsum(0) * rng.uniform(0.05, 0.12) * scale
        walk += rng.uniform(0, 1, 2) * [shape[1], shape[0]]
        cv2.polylines(marks, [walk.astype(np.int32)], False, int(rng.integers(120, 230)), int(rng.integers(1, 3)), cv2.LINE_AA)
    image = tinted((112, 111, 110), brightness)
    paint(image, marks.astype(np.float32) / 255, (38, 37, 38))
    stains = np.zeros(shape, np.uint8)
    for _ in range(int(shape[1] / scale / 1.2)):
        centre = int(rng.integers(shape[1])), int(rng.integers(shape[0]))
        axes = tuple(int(v) for v in rng.uniform(0.05, 0.45, 2) * scale)
        cv2.ellipse(stains, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(50, 150)), -1, cv2.LINE_AA)
    paint(image, cv2.GaussianBlur(stains, (0, 0), 0.05 * scale).astype(np.float32) / 255, (44, 42, 42))
    for _ in range(int(shape[1] / scale / 13)):
        centre = int(rng.integers(shape[1])), int(shape[0] / 2 + rng.uniform(-4, 4) * scale)
        cv2.circle(image, centre, int(0.36 * scale), (74, 72, 70), -1, cv2.LINE_AA)
        for radius in (0.36, 0.30, 0.20, 0.10):
            cv2.circle(image, centre, int(radius * scale), (40, 39, 38), max(1, int(0.025 * scale)), cv2.LINE_AA)
    return image


def _road_words(rng: np.random.Generator, image: np.ndarray, plan: StreetPlan, worn: np.ndarray) -> None:
    """Paint speed figures on the lanes, stretched along the road as they are in the world."""
    scale = plan.pixels_per_m
    for s in np.arange(plan.start_m + 14, plan.end_m - 30, 38.0):
        if any(abs(s - c) < 9 for c in (*plan.crosswalk_m, *([plan.cross_street_m] if plan.cross_street_m else []))):
            continue
        word = np.zeros((96, 120), np.uint8)
        cv2.putText(word, str(rng.choice(["30", "40"])), (8, 78), cv2.FONT_HERSHEY_SIMPLEX, 2.6, 255, 13, cv2.LINE_AA)
        stretched = cv2.resize(cv2.rotate(word, cv2.ROTATE_90_CLOCKWISE), (round(2.6 * scale), round(1.5 * scale)))
        column = round((s - plan.start_m) * scale)
        row = round((plan.pavement_half_m + 1.6 - 0.75) * scale)
        where = np.s_[row : row + stretched.shape[0], column : column + stretched.shape[1]]
        part = image[where]
        paint(part, stretched[: part.shape[0], : part.shape[1]] / 255 * worn[where], (216, 216, 208))


def _pavement(rng: np.random.Generator, image: np.ndarray, plan: StreetPlan, d: np.ndarray, s: np.ndarray) -> None:
    """Paint both pavements over the image: slabs, kerb stones, gutters and dirt."""
    scale = plan.pixels_per_m
    closed = np.ones_like(s, bool) if plan.cross_street_m is None else np.abs(s - plan.cross_street_m) > plan.cross_half_m
    columns = np.flatnonzero(closed[0])
    if not len(columns):
        return
    for side in (1, -1):
        rows = np.flatnonzero((d[:, 0] * side) > plan.road_half_m)
        top, shape = rows[0], (len(rows), image.shape[1])
        value, joint = blocks(rng, shape, (rng.uniform(0.3, 0.5) * scale, rng.uniform(0.5, 0.8) * scale))
        brightness = (
            1 + 0.075 * value + 0.08 * fractal_noise(rng, shape, 2.5 * scale, 6) + 0.05 * rng.standard_normal(shape, np.float32)
        )
        slabs = tinted(((158, 152, 143), (150, 142, 132))[side > 0], brightness)
        paint(slabs, 0.55 * joint, (74, 70, 64))
        spots = (fractal_noise(rng, shape, 0.09 * scale, 1) > 3.1).astype(np.float32)
        paint(slabs, 0.5 * spots, (60, 58, 56))
        kerb = d[rows] * side < plan.road_half_m + 0.18
        value, joint = blocks(rng, shape, (10.0 * scale, 1.0 * scale))
        stone = tinted((170, 168, 163), 1 + 0.06 * value + 0.08 * rng.standard_normal(shape, np.float32))
        paint(stone, 0.7 * joint, (70, 68, 66))
        slabs = np.where(kerb[..., None], stone, slabs)
        part = image[top : top + len(rows)]
        part[:, columns] = slabs[:, columns]
    gutter = np.clip(1 - np.abs(np.abs(d) - plan.road_half_m + 0.15) / 0.3, 0, 1) * (np.abs(d) < plan.road_half_m) * closed
    image *= 1 - 0.3 * gutter[..., None]


def paint_yard(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Paint grass with worn patches, `[h, w, 3]` float32 0..255."""
    brightness = 1 + 0.16 * rng.standard_normal(shape, np.float32) + 0.14 * fractal_noise(rng, shape, 3 * scale, 5)
    image = tinted((98, 116, 62), brightness)
    bare = np.clip(fractal_noise(rng, shape, 2.2 * scale, 5) - 0.8, 0, 1)
    paint(image, bare, (132, 116, 92))
    return image


def ground_bytes(image: np.ndarray) -> np.ndarray:
    """Return the painted ground as a texture with fewer texels along the street than across it.

    The camera looks along the street, where a pixel covers a long thin patch: mipmaps pick their level by its length,
    and would blur lane lines sideways if texels were square.
    """
    return to_bytes(cv2.resize(image, None, fx=0.5, fy=1.0, interpolation=cv2.INTER_AREA))
