"""What kind of camera motion a clip shows, found from sparse optical flow before any reconstruction is tried.

Corners of an anchor frame are tracked directly into every later frame (pyramidal Lucas-Kanade, Bouguet 2001, with a
forward-backward check), so nothing drifts; a new anchor is taken when half of them are lost. A camera on a tripod leaves
most corners where they were; a camera that only turns moves them by K R K^-1, a homography without depth (Hartley and
Zisserman, Multiple View Geometry, 8.4); everything else is worth a reconstruction.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from schemas.media import Video
from worldline.cameras import nearest_rotation

WORKING_SIDE_PX = 640  # larger frames are reduced to this; all thresholds below are pixels at this size
_CORNERS = 400
_LOOKED_AT, _COMPARED = 12, 24  # frames whose texture is judged, and that are compared with the first
_WINDOW, _LEVELS = (21, 21), 4


@dataclass(frozen=True)
class FootageConfig:
    """Thresholds of the classification, in pixels of an image reduced to 640 on its longer side.

    Attributes:
        min_corners: fewer trackable corners than this in the median frame is "textureless".
        corner_strength: mean squared Sobel response (8-bit grey levels, blurred by 2 px) that a corner must have in every
            direction to count as texture.
        static_px: a frame whose median corner moved less than this has not moved against the first frame.
        static_share: share of sampled frames, the last among them, that must not have moved for "static".
        rotation_px: median reprojection error of the best rotation up to which a pair shows no parallax,
        rotation_share: or this share of the median displacement, if that is more: the further a corner goes, the more its
            patch changes and the less exactly it is found.
        rotation_inliers: share of corners that must lie within three times that error.
    """

    min_corners: int = 40
    corner_strength: float = 5.0
    static_px: float = 0.7
    static_share: float = 0.6
    rotation_px: float = 0.5
    rotation_share: float = 0.003
    rotation_inliers: float = 0.9


@dataclass(frozen=True)
class FramePair:
    """Corners of frame `first` found again in frame `second`, `[N, 2]` pixels at full size, pixel centres at +0.5."""

    first: int
    second: int
    first_px: np.ndarray
    second_px: np.ndarray


@dataclass(frozen=True)
class Footage:
    """Verdict on a clip, and for "rotation" the pose of every frame.

    Attributes:
        verdict: "static", "textureless", "rotation", "moving", or "failed" for a clip of one frame.
        first_from_camera: rotations `[T, 3, 3]` of every frame against the first, for "rotation".
        focal_px: focal length that explains the rotation best, for "rotation".
    """

    verdict: str
    first_from_camera: np.ndarray | None = None
    focal_px: float = 0.0


def working_images(frames: Iterable[np.ndarray], size: tuple[int, int]) -> tuple[list[np.ndarray], float]:
    """Return grey images at the working size, and the factor from working pixels to full pixels."""
    factor = max(max(size) / WORKING_SIDE_PX, 1.0)  # small frames stay as they are
    return [working_image(frame, size) for frame in frames], factor


def working_image(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the grey image of an RGB frame at the working size."""
    factor = max(max(size) / WORKING_SIDE_PX, 1.0)
    small = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
    return np.asarray(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), small, interpolation=cv2.INTER_AREA))


def find_corners(image: np.ndarray, strength: float) -> np.ndarray:
    """Return well-spread corners `[N, 2]` float32 whose gradient matrix is strong in absolute terms.

    OpenCV's corner quality is relative to the best corner, so a grey wall would be full of them: noise is masked out.
    """
    # blurred this far, sensor noise of 4 grey levels stays under the default strength, and faint texture above it
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0)  # in float: rounding is noise, too
    # cornerMinEigenVal scales Sobel responses by 1 / (4 * block size) and sums over the block: undo that
    strong = cv2.cornerMinEigenVal(smooth, blockSize=3, ksize=3) * 12.0**2 / 9.0 > strength
    corners = cv2.goodFeaturesToTrack(smooth, _CORNERS, 1e-4, 8, mask=strong.astype(np.uint8), blockSize=3)
    return np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)


def _lucas_kanade(first: np.ndarray, second: np.ndarray, corners: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, corners, guess.copy(), winSize=_WINDOW, maxLevel=_LEVELS, flags=cv2.OPTFLOW_USE_INITIAL_FLOW
    )
    return np.asarray(there, np.float32), np.asarray(found)[:, 0] > 0


def track(first: np.ndarray, second: np.ndarray, corners: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Track `corners` `[N, 2]` from one grey image into another, starting at `guess`.

    Returns:
        Positions `[N, 2]`, and which of them survive the way back to within half a pixel.
    """
    there, found = _lucas_kanade(first, second, corners, guess)
    back, returned = _lucas_kanade(second, first, there, corners)
    height, width = second.shape
    inside = np.all((there >= 0) & (there <= [width - 1, height - 1]), axis=1)
    same = np.linalg.norm(back - corners, axis=1) < 0.5
    return there, found & returned & inside & same


def pair_frames(
    images: Iterable[np.ndarray], strength: float, on_frame: Callable[[int], None]
) -> list[tuple[int, int, np.ndarray]]:
    """Track every frame against an anchor frame before it; three images are held at a time.

    Returns:
        One `(anchor, frame, corners [N, 2, 2])` per frame after the first, where corners holds (anchor, frame) positions of the
        survivors in working pixels.
    """
    pairs: list[tuple[int, int, np.ndarray]] = []
    coming = iter(images)
    anchor, anchor_image = 0, next(coming)
    before = anchor_image
    corners = find_corners(anchor_image, strength)
    guess, alive = corners.copy(), np.ones(len(corners), bool)
    for index, image in enumerate(coming, 1):
        on_frame(index)
        for attempt in range(2):
            if not len(corners):
                break
            guess, alive = track(anchor_image, image, corners, guess)
            # a new anchor one frame back, once: where even that loses half, the scene is simply hard to track
            if alive.mean() >= 0.5 or anchor == index - 1 or attempt:
                break
            anchor, anchor_image, corners = index - 1, before, find_corners(before, strength)
            guess = corners.copy()
        pairs.append((anchor, index, np.stack([corners[alive], guess[alive]], axis=1)))
        if len(corners) < 8 and anchor != index:
            anchor, anchor_image, corners = index, image, find_corners(image, strength)
            guess, alive = corners.copy(), np.ones(len(corners), bool)
        before = image
    return pairs


def is_static(images: Sequence[np.ndarray], config: FootageConfig) -> bool:
    """Whether most of the first image is still in place in most of some images spread over a clip, the last among them.

    Frames that differ are allowed in between (a bus passes before the tripod); a car that waits and then drives ends
    elsewhere and is not static.
    """
    corners = find_corners(images[0], config.corner_strength)
    if len(corners) < config.min_corners:
        return False
    in_place = []
    for image in images[1:]:
        there, alive = track(images[0], image, corners, corners)
        moved = np.linalg.norm(there - corners, axis=1)[alive]
        in_place.append(alive.mean() > 0.3 and np.median(moved) < config.static_px)
    return bool(in_place[-1]) and float(np.mean(in_place)) >= config.static_share


def fit_rotation(pair: FramePair, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the rotation `first_from_second` that maps the viewing rays of a pair onto each other, robustly.

    Returns:
        The rotation `[3, 3]`, and the reprojection error of every corner in pixels.
    """
    inverse = np.linalg.inv(intrinsics)
    a, b = (np.column_stack([px, np.ones(len(px))]) @ inverse.T for px in (pair.first_px, pair.second_px))
    a_unit, b_unit = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (a, b))
    weights = np.ones(len(a))
    for _ in range(15):  # least absolute deviations by reweighting: movers must not turn the camera
        rotation = nearest_rotation((a_unit * weights[:, None]).T @ b_unit)
        predicted = b_unit @ rotation.T @ intrinsics.T
        error = np.linalg.norm(predicted[:, :2] / predicted[:, 2:] - pair.first_px, axis=1)
        weights = 1.0 / np.maximum(error, 0.05)
    return rotation, error


def with_focal(intrinsics: np.ndarray, focal: float) -> np.ndarray:
    """Return the pinhole matrix with another focal length, the pixels' aspect kept."""
    return np.array(
        [
            [focal, 0.0, intrinsics[0, 2]],
            [0.0, focal * intrinsics[1, 1] / intrinsics[0, 0], intrinsics[1, 2]],
            [0.0, 0.0, 1.0],
        ]
    )


def find_rotation(
    pairs: list[FramePair], count: int, intrinsics: np.ndarray, focal_known: bool, factor: float, config: FootageConfig
) -> Footage | None:
    """Return the pure rotation that explains all pairs, or None where one shows parallax or nothing moves enough to tell.

    Only the last frame of every anchor is judged: the wider the view has turned, the better parallax shows.
    """
    last_of = {pair.first: pair for pair in sorted(pairs, key=lambda pair: pair.second)}
    wide = [p for p in last_of.values() if np.median(np.linalg.norm(p.second_px - p.first_px, axis=1)) > 6 * factor]
    if not wide or any(len(pair.first_px) < config.min_corners / 2 for pair in pairs):
        return None
    focal = float(intrinsics[0, 0])
    if not focal_known:
        candidates = focal * np.geomspace(0.4, 3.0, 25)
        errors = [np.concatenate([fit_rotation(pair, with_focal(intrinsics, f))[1] for pair in wide]) for f in candidates]
        focal = float(candidates[np.argmin([np.median(error) for error in errors])])
    K = with_focal(intrinsics, focal)
    for pair in wide:
        moved = float(np.median(np.linalg.norm(pair.second_px - pair.first_px, axis=1)))
        limit = max(config.rotation_px * factor, config.rotation_share * moved)
        error = fit_rotation(pair, K)[1]
        if np.median(error) > limit or np.mean(error < 3 * limit) < config.rotation_inliers:
            return None
    rotations = np.repeat(np.eye(3)[None], count, axis=0)
    for pair in pairs:
        rotations[pair.second] = rotations[pair.first] @ fit_rotation(pair, K)[0]
    return Footage("rotation", rotations, focal)


def classify_footage(
    frames: Video | Sequence[np.ndarray],
    size: tuple[int, int],
    intrinsics: np.ndarray,
    focal_known: bool,
    config: FootageConfig,
    on_frame: Callable[[int], None] = lambda index: None,
) -> Footage:
    """Say what kind of camera motion `frames` (RGB, `[T]` of `[H, W, 3]`) show; a few of them are held at a time.

    Args:
        frames: the clip, read twice.
        size: width and height in pixels.
        intrinsics: pinhole matrix, or a guess of it.
        focal_known: whether the focal length is calibrated; else a rotation estimates it.
        config: thresholds.
        on_frame: called with the index of the frame being looked at.
    """
    count = len(frames)
    if count < 2:
        return Footage("failed")
    looked_at, compared = spread(0, count - 1, _LOOKED_AT), [0, *spread(1, count - 1, _COMPARED)]
    wanted = {*looked_at, *compared}
    seen = {index: working_image(frame, size) for index, frame in enumerate(frames) if index in wanted}
    if np.median([len(find_corners(seen[index], config.corner_strength)) for index in looked_at]) < config.min_corners:
        return Footage("textureless")
    if is_static([seen[index] for index in compared], config):
        return Footage("static")
    tracked = pair_frames((working_image(frame, size) for frame in frames), config.corner_strength, on_frame)
    factor = max(max(size) / WORKING_SIDE_PX, 1.0)
    pairs = [FramePair(a, b, (c[:, 0] + 0.5) * factor, (c[:, 1] + 0.5) * factor) for a, b, c in tracked]
    return find_rotation(pairs, count, intrinsics, focal_known, factor, config) or Footage("moving")


def spread(first: int, last: int, number: int) -> list[int]:
    """Return at most `number` indices spread evenly from `first` to `last`."""
    return [int(index) for index in np.unique(np.linspace(first, last, number).round())]
