"""Houses: a facade of its own for each, painted on the front, with cornice, sills and balconies that stand out."""

import itertools

import cv2
import numpy as np

from worldline.worlds.noise import blocks, fractal_noise, paint, tinted, to_bytes
from worldline.worlds.scene import Mesh, planar_pose
from worldline.worlds.shapes import box, merged, quad

WALLS = (
    (178, 92, 70),
    (150, 78, 62),
    (214, 198, 168),
    (226, 214, 190),
    (190, 176, 160),
    (206, 160, 124),
    (160, 172, 176),
    (216, 186, 140),
)
TRIMS = ((232, 228, 218), (206, 196, 178), (90, 84, 78), (188, 182, 174))
AWNINGS = ((164, 40, 38), (38, 92, 74), (40, 66, 120), (206, 150, 48), (96, 52, 92))


def make_house(rng: np.random.Generator, width: float, depth: float, pixels_per_m: float) -> list[Mesh]:
    """Build a house whose front lies in the plane y = 0 facing +y, from x = 0 to `width`, behind it down to y = -depth."""
    storeys = int(rng.integers(2, 6))
    ground_floor, storey = rng.uniform(3.5, 4.1), rng.uniform(2.9, 3.3)
    height = ground_floor + storeys * storey + 0.5
    brick = bool(rng.random() < 0.45)
    wall = np.array(WALLS[rng.integers(2)] if brick else WALLS[rng.integers(2, len(WALLS))], float) * rng.uniform(0.88, 1.06)
    trim = TRIMS[rng.integers(len(TRIMS))]
    front, sills, balconies = _facade(rng, (width, height), (ground_floor, storey, storeys), (wall, trim), brick, pixels_per_m)
    side = to_bytes(
        _wall(rng, (round(height * pixels_per_m * 0.5), round(depth * pixels_per_m * 0.5)), pixels_per_m * 0.5, wall, brick)
    )
    roof = to_bytes(tinted((92, 86, 84), 1 + 0.15 * fractal_noise(rng, (64, 64), 16, 5)))
    w, b, h = width, -depth, height
    meshes = [
        quad(np.array([(w, 0, 0), (0, 0, 0), (0, 0, h), (w, 0, h)]), front),
        quad(np.array([(0, 0, 0), (0, b, 0), (0, b, h), (0, 0, h)]), side),
        quad(np.array([(w, b, 0), (w, 0, 0), (w, 0, h), (w, b, h)]), side),
        quad(np.array([(0, b, 0), (w, b, 0), (w, b, h), (0, b, h)]), side),
        quad(np.array([(0, 0, h), (0, b, h), (w, b, h), (w, 0, h)]), roof),
    ]
    stone = to_bytes(tinted(trim, 1 + 0.10 * fractal_noise(rng, (64, 256), 30, 6)))
    solids = [_at(box((width + 0.3, 0.55, 0.45), stone), width / 2, 0.0, h - 0.35)]
    solids += [_at(box((span + 0.25, 0.24, 0.1), stone), width - x, 0.05, z - 0.1) for x, z, span in sills]
    for x, z, span in balconies:
        solids.append(_at(box((span + 0.9, 1.6, 0.16), stone), width - x, 0.0, z - 0.25))
        bars = [(span * (k / 6 - 0.5) * 1.35, 0.76) for k in range(7)]
        solids += [_at(box((0.05, 0.05, 0.85), stone), width - x + dx, dy, z - 0.1) for dx, dy in bars]
        solids.append(_at(box((span + 0.9, 0.08, 0.07), stone), width - x, 0.76, z + 0.75))
    return [*meshes, merged(solids)]


def _at(mesh: Mesh, x: float, y: float, z: float) -> Mesh:
    return mesh.moved(planar_pose(x, y, z, 0.0))


def _wall(rng: np.random.Generator, shape: tuple[int, int], scale: float, rgb: np.ndarray, brick: bool) -> np.ndarray:
    """Return bare masonry or plaster with rain streaks and dirt near the ground, `[h, w, 3]` float32."""
    brightness = 1 + 0.07 * fractal_noise(rng, shape, 2.0 * scale, 6)
    if brick:
        value, joint = blocks(rng, shape, (0.11 * scale, 0.30 * scale))
        image = tinted(rgb, brightness + 0.12 * value + 0.03 * rng.standard_normal(shape, np.float32))
        paint(image, 0.45 * joint, (186, 178, 168))
    else:
        image = tinted(rgb, brightness + 0.045 * rng.standard_normal(shape, np.float32))
        patches = np.clip(2.5 * (fractal_noise(rng, shape, 1.4 * scale, 5) - 1.55), 0, 1)
        paint(image, 0.55 * patches, np.asarray(rgb) * 0.72)
    streaks = np.clip(fractal_noise(rng, shape, 1.6 * scale, 5, stretch=0.12), 0, 3) / 3
    fade = np.linspace(1.0, 0.3, shape[0], dtype=np.float32)[:, None]
    image *= 1 - 0.30 * (streaks * fade)[..., None]
    foot = np.exp(-(shape[0] - np.arange(shape[0], dtype=np.float32))[:, None] / (0.7 * scale))
    image *= 1 - 0.35 * (foot * np.clip(0.8 + 0.4 * fractal_noise(rng, shape, 0.6 * scale, 4), 0, 1))[..., None]
    return image


def _facade(
    rng: np.random.Generator,
    size: tuple[float, float],
    floors: tuple[float, float, int],
    colours: tuple[np.ndarray, tuple[int, int, int]],
    brick: bool,
    scale: float,
) -> tuple[np.ndarray, list[tuple[float, float, float]], list[tuple[float, float, float]]]:
    """Paint a front and say where sills and balconies go: (centre from the image's left, bottom height, width) in metres."""
    width, height = size
    ground_floor, storey, storeys = floors
    wall, trim = colours
    image = _wall(rng, (round(height * scale), round(width * scale)), scale, wall, brick)
    bays = max(2, int(width / rng.uniform(2.3, 3.1)))
    wide, tall = rng.uniform(0.95, 1.45), rng.uniform(1.5, 1.95)
    style = int(rng.integers(3))
    shutters = bool(rng.random() < 0.3) and bays * (wide * 2) < width
    shutter_rgb = np.array(((70, 96, 84), (92, 70, 56), (72, 88, 112), (150, 60, 50))[rng.integers(4)])
    sills: list[tuple[float, float, float]] = []
    balconies: list[tuple[float, float, float]] = []
    for floor in range(storeys):
        bottom = ground_floor + floor * storey + 0.75
        if rng.random() < 0.5:  # a band of trim between storeys
            y = round((height - ground_floor - floor * storey) * scale)
            cv2.rectangle(image, (0, y - int(0.12 * scale)), (image.shape[1], y), trim, -1)
        for bay in range(bays):
            centre = (bay + 0.5) * width / bays
            _window(rng, image, scale, (centre, height - bottom - tall), (wide, tall), trim, style)
            if shutters:
                for side in (-1, 1):
                    _shutter(
                        rng, image, scale, (centre + side * 0.76 * wide, height - bottom - tall), (wide * 0.5, tall), shutter_rgb
                    )
            (balconies if rng.random() < 0.12 else sills).append((centre, bottom, wide))
    _shop(rng, image, scale, height, ground_floor, width, trim)
    # streets are seen along their facades: fewer texels along the street than up keep mipmaps sharp at grazing angles
    return to_bytes(cv2.resize(image, None, fx=0.6, fy=1.0, interpolation=cv2.INTER_AREA)), sills, balconies


def _rectangle(image: np.ndarray, scale: float, corner: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """Return the view of the image under a rectangle in metres from the top left."""
    x, y = max(round(corner[0] * scale), 0), max(round(corner[1] * scale), 0)
    return image[y : y + max(round(size[1] * scale), 1), x : x + max(round(size[0] * scale), 1)]


def _glass(rng: np.random.Generator, view: np.ndarray) -> None:
    """Fill a pane: a dark room, the sky mirrored in it, perhaps a curtain, a blind or a lamp."""
    h, w = view.shape[:2]
    if h < 3 or w < 3:
        return
    mirrored = np.linspace(1.25, 0.6, h, dtype=np.float32)[:, None] + 0.30 * fractal_noise(rng, (h, w), max(w, 6), 4)
    view[:] = tinted(rng.uniform(0.8, 1.15) * np.array([58, 68, 78]), np.clip(mirrored, 0.25, 2.2))
    kind = rng.random()
    if kind < 0.35:
        folds = 0.85 + 0.2 * np.sin(np.arange(w) * rng.uniform(0.6, 1.4))[None, :] * np.ones((h, 1))
        reach = int(w * rng.uniform(0.18, 0.42))
        cloth = tinted(rng.uniform(120, 225, 3) * 0.5 + 80, folds)
        view[:, :reach], view[:, w - reach :] = cloth[:, :reach], cloth[:, w - reach :]
    elif kind < 0.6:
        low = int(h * rng.uniform(0.2, 0.9))
        view[:low] = tinted(rng.uniform(150, 215, 3), (0.8 + 0.2 * (np.arange(low)[:, None] % 4 < 2)) * np.ones((1, w)))
    elif kind < 0.7:
        view[:] = view * 0.6 + tinted((230, 190, 120), np.full((h, w), 0.4))
    view *= np.linspace(0.55, 1.0, max(h, 2))[:h, None, None] ** 0.4  # the lintel's shade


def _window(
    rng: np.random.Generator,
    image: np.ndarray,
    scale: float,
    top_centre: tuple[float, float],
    size: tuple[float, float],
    trim: tuple[int, int, int],
    style: int,
) -> None:
    x, y = top_centre[0] - size[0] / 2, top_centre[1]
    surround = _rectangle(image, scale, (x - 0.16, y - 0.2), (size[0] + 0.32, size[1] + 0.24))
    surround[:] = tinted(trim, 1 + 0.07 * rng.standard_normal(surround.shape[:2]))
    frame = _rectangle(image, scale, (x, y), size)
    frame[:] = np.array((236, 234, 228) if style < 2 else (70, 58, 50)) * rng.uniform(0.85, 1.0)
    columns, rows = ((2, 2), (2, 1), (1, 2))[style]
    bar = 0.06
    for column in range(columns):
        for row in range(rows):
            top = (0.0, 0.33, 1.0)[row] if rows == 2 else 0.0
            bottom = (0.33, 1.0)[row] if rows == 2 else 1.0
            corner = x + bar + column * size[0] / columns, y + bar + top * size[1]
            pane = _rectangle(image, scale, corner, (size[0] / columns - 1.5 * bar, (bottom - top) * size[1] - 1.5 * bar))
            _glass(rng, pane)
    below = _rectangle(image, scale, (x - 0.1, y + size[1] + 0.05), (size[0] + 0.2, rng.uniform(0.3, 0.9)))
    if below.size:
        streak = np.clip(0.5 + fractal_noise(rng, below.shape[:2], 8, 2, stretch=0.2), 0, 1)
        below *= 1 - 0.3 * (streak * np.linspace(1, 0, below.shape[0])[:, None])[..., None]


def _shutter(
    rng: np.random.Generator,
    image: np.ndarray,
    scale: float,
    top_centre: tuple[float, float],
    size: tuple[float, float],
    rgb: np.ndarray,
) -> None:
    view = _rectangle(image, scale, (top_centre[0] - size[0] / 2, top_centre[1]), size)
    slats = 0.8 + 0.25 * (np.arange(view.shape[0])[:, None] % 5 < 3) + 0.06 * rng.standard_normal(view.shape[:2])
    view[:] = tinted(rgb, slats)


def _shop(
    rng: np.random.Generator,
    image: np.ndarray,
    scale: float,
    height: float,
    ground_floor: float,
    width: float,
    trim: tuple[int, int, int],
) -> None:
    """Paint the ground floor: shop windows with goods, a door, an awning and a sign, or a plain house front."""
    top = height - ground_floor
    if rng.random() < 0.3:
        bays = max(2, int(width / 3))
        door = int(rng.integers(bays))
        for bay in range(bays):
            centre = (bay + 0.5) * width / bays
            if bay == door:
                _door(rng, image, scale, (centre, height))
            else:
                _window(rng, image, scale, (centre, top + 0.7), (1.2, 1.7), trim, 1)
        return
    front = _rectangle(image, scale, (0.25, top + 0.25), (width - 0.5, ground_floor - 0.25))
    front[:] = tinted(rng.uniform(50, 190, 3), 1 + 0.06 * rng.standard_normal(front.shape[:2]))
    edges = np.sort(rng.uniform(0.2, 0.8, int(width / 4.5) + 1)) * (width - 0.5) + 0.25
    edges = np.concatenate([[0.4], edges[np.diff(edges, prepend=-9) > 1.4], [width - 0.4]])
    door = int(rng.integers(len(edges) - 1))
    for index, (left, right) in enumerate(itertools.pairwise(edges)):
        if index == door:
            _door(rng, image, scale, ((left + right) / 2, height))
            continue
        pane = _rectangle(image, scale, (left + 0.08, top + 1.25), (right - left - 0.16, ground_floor - 1.75))
        _glass(rng, pane)
        for _ in range(int((right - left) * 5)):  # goods behind the glass
            spot = int(rng.integers(max(pane.shape[1], 1))), int(pane.shape[0] * rng.uniform(0.35, 0.98))
            size = int(rng.uniform(0.06, 0.24) * scale) + 1
            colour = tuple(float(v) for v in rng.uniform(40, 150) + rng.uniform(-35, 60, 3))
            cv2.rectangle(pane, spot, (spot[0] + size, spot[1] + int(size * rng.uniform(0.6, 2.0))), colour, -1)
    _sign(rng, image, scale, (0.25, top + 0.3), (width - 0.5, 0.75))


def _sign(
    rng: np.random.Generator, image: np.ndarray, scale: float, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    view = _rectangle(image, scale, corner, size)
    board = np.array(AWNINGS[rng.integers(len(AWNINGS))], float)
    view[:] = tinted(board, 1 + 0.05 * rng.standard_normal(view.shape[:2]))
    syllables = ["LA", "MO", "RI", "TEN", "KA", "BRO", "SU", "VEL", "NO", "PAN", "CAF", "ELLO", "DOR", "MIX", "FLO", "RA"]
    word = "".join(rng.choice(syllables, int(rng.integers(2, 5))))
    letters = np.zeros(view.shape[:2], np.uint8)
    size_text = 0.026 * view.shape[0]
    at = int(view.shape[1] * rng.uniform(0.06, 0.4)), int(view.shape[0] * 0.78)
    cv2.putText(letters, word, at, int(rng.integers(0, 5)), size_text, 255, max(1, int(size_text * 2.2)), cv2.LINE_AA)
    paint(view, letters / 255, (240, 232, 214))
    awning = _rectangle(image, scale, (corner[0], corner[1] + size[1]), (size[0], 0.45))
    stripes = (np.arange(awning.shape[1]) // max(int(0.3 * scale), 1) % 2)[None, :, None]
    awning[:] = np.where(stripes > 0, board * 0.9, 226.0) * np.linspace(1.0, 0.7, awning.shape[0])[:, None, None]


def _door(rng: np.random.Generator, image: np.ndarray, scale: float, foot: tuple[float, float]) -> None:
    leaf = np.array(((92, 54, 36), (40, 62, 56), (44, 50, 72), (120, 36, 34))[rng.integers(4)], float)
    surround = _rectangle(image, scale, (foot[0] - 0.62, foot[1] - 2.6), (1.24, 2.6))
    surround[:] = (206, 200, 190)
    view = _rectangle(image, scale, (foot[0] - 0.5, foot[1] - 2.45), (1.0, 2.4))
    view[:] = tinted(leaf, 1 + 0.07 * fractal_noise(rng, view.shape[:2], 20, 4, stretch=0.2))
    for row in range(3):
        panel = _rectangle(image, scale, (foot[0] - 0.36, foot[1] - 2.3 + row * 0.75), (0.72, 0.58))
        panel *= 0.72
    _glass(rng, _rectangle(image, scale, (foot[0] - 0.36, foot[1] - 2.3), (0.72, 0.58)))
