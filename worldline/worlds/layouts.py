"""Kinds of streets: those that tests and demos know by name, and any number drawn from a random generator."""

from dataclasses import dataclass

import numpy as np

from worldline.worlds.ground import RoadLine, StreetPlan, single_lane_lines
from worldline.worlds.light import WEATHERS

LANE_M = 1.6  # distance of a single lane's middle from the centre line: half a lane
START_M, END_M = -14.0, 150.0


@dataclass(frozen=True)
class Layout:
    """A kind of street.

    Attributes:
        turn_rad_per_m: curvature of the centre line (positive: to the left) over `turn_m`.
        turn_m: where it turns, metres along the street.
        cross_street_m: where another street crosses, or None.
        crosswalk_m: where zebra crossings begin.
        ego_mps: (time, speed) of the camera car.
        buses: how buses fill the view: "" (none), "ahead" (the camera follows one), "beside" (one passes slowly on the
            left) or "across" (they cross right before the camera, on the crossing street).
        lanes: in each direction; the camera drives in the rightmost.
        parked: shares of the places along the left and the right kerb that are taken; None where there are no bays.
        busy: whether traffic is drawn at random rather than as the named layouts tell it.
        weather: one of `WEATHERS`.
    """

    turn_rad_per_m: float
    turn_m: tuple[float, float]
    cross_street_m: float | None
    crosswalk_m: tuple[float, ...]
    ego_mps: tuple[tuple[float, float], ...]
    buses: str = ""
    lanes: int = 1
    parked: tuple[float, float] | None = (0.62, 0.62)
    busy: bool = False
    weather: str = "clear"

    @property
    def ego_d_m(self) -> float:
        """Where the middle of the camera's lane is, to the left of the centre line."""
        return -(2 * self.lanes - 1) * LANE_M

    def plan(self, pixels_per_m: float) -> StreetPlan:
        """Return the street's cross-section, paint and crossings."""
        if self.lanes == 1:
            road_half, bay, lines, stop = 5.4, 2.15, single_lane_lines(5.4), 3.1
        else:
            lane, edge = 2 * LANE_M, 2 * LANE_M * self.lanes
            bay = 0.0 if self.parked is None else 2.15
            road_half, stop = edge + (bay or 0.4), edge - 0.15
            middle = RoadLine(0.0, 0.08, 1.0, 1.0)
            between = [RoadLine(side * lane * k, 0.07, 6.0, 3.0) for k in range(1, self.lanes) for side in (1, -1)]
            border = [RoadLine(side * edge, 0.07, 1.6, 0.8 if bay else 1.6) for side in (1, -1)]
            lines = (middle, *between, *border)
        return StreetPlan(
            START_M,
            END_M,
            road_half,
            road_half + 3.4,
            44.0,
            self.crosswalk_m,
            self.cross_street_m,
            4.6,
            pixels_per_m,
            lines,
            bay,
            stop,
        )


LAYOUTS = {
    "straight": Layout(0.0, (0, 0), None, (58.0,), ((0, 8.4), (2.2, 9.0), (4.4, 7.6), (6.6, 4.2), (9, 3.6))),
    "curve": Layout(1 / 70, (12, 92), None, (), ((0, 7.6), (2.5, 8.2), (5, 7.2), (8, 7.8))),
    "junction": Layout(0.0, (0, 0), 56.0, (46.0,), ((0, 8.6), (2.0, 8.0), (5.0, 2.0), (9.0, 1.6))),
    "bus_ahead": Layout(0.0, (0, 0), None, (), ((0, 6.0), (2.0, 7.4), (4.0, 5.6), (6.0, 6.0)), "ahead"),
    "bus_beside": Layout(1 / 120, (12, 92), None, (), ((0, 6.4), (2.0, 6.0), (4.0, 6.6)), "beside"),
    "buses_across": Layout(0.0, (0, 0), 18.5, (), ((0, 3.6), (1.5, 2.6), (3.0, 0.8), (5.0, 1.4)), "across"),
}


def sample_layout(rng: np.random.Generator) -> Layout:
    """Draw a street with two lanes each way: its bends, crossings, parked rows, weather, and the camera car's speed."""
    cross_street = float(rng.uniform(30, 75)) if rng.random() < 0.45 else None
    turn = float(rng.choice([-1, 1]) / rng.uniform(85, 260)) if rng.random() < 0.7 else 0.0
    bend = float(rng.uniform(-5, 25)), float(rng.uniform(55, 110))
    if cross_street is not None:  # the crossing street is straight, so the main one must be so where they meet
        bend = cross_street + 16.0, cross_street + 75.0
    crosswalks = []
    if cross_street is not None and rng.random() < 0.7:
        crosswalks.append(cross_street - 4.6 - 5.4)
    if rng.random() < 0.4:
        place = float(rng.uniform(22, 90))
        if cross_street is None or abs(place - cross_street) > 22:
            crosswalks.append(place)
    parked = (float(rng.uniform(0.15, 0.85)), float(rng.uniform(0.15, 0.85))) if rng.random() < 0.65 else None
    speed = rng.uniform(6, 9)
    knots = tuple((time, float(np.clip(speed + rng.normal(0, 0.5), 6, 9))) for time in (0.0, 2.0, 4.0, 6.0))
    weather = str(rng.choice(list(WEATHERS), p=[0.4, 0.2, 0.15, 0.1, 0.15]))
    return Layout(
        turn,
        bend,
        cross_street,
        tuple(crosswalks),
        knots,
        lanes=2,
        parked=parked,
        busy=True,
        weather=weather,
    )
