"""The model of a long clip, made of windows that were joined: adjusted as one, and held against what was matched.

Nothing is triangulated anew: the points of the windows are enough, and many times fewer than all that was matched.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.pose.windows import Joined, Piece, join_points, thin_points
from worldline.cameras import invert_rigid

PER_FRAME = 400  # observations that a frame keeps: as many as a window's own map has
_FACTORED_FRAMES = 200  # up to which the normal equations are factored
_MAX_ERROR_PX = 4.0
_MATCHES_READ = 40  # per pair of frames in different windows
_AGREES_SHARE, _AGREES_LIMIT = 0.5, 0.01
_FEWEST_MATCHES = 10

Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class Agreement:
    """Whether a path agrees with the matches between its frames.

    Attributes:
        kept: the frames, of those that were placed, that hang together by pairs which agree: the largest such part.
        returns: pairs of frames far apart that were judged,
        contradicted: and how many of them contradict the path.
    """

    kept: Int[np.ndarray, " K"]
    returns: int
    contradicted: int


def verified_pairs(pycolmap: Any, database: Path) -> Pairs:
    """Return the pairs of frames whose matches were verified."""
    with pycolmap.Database.open(str(database)) as opened:
        ids, inliers = opened.read_two_view_geometry_num_inliers()
    both = [pycolmap.pair_id_to_image_pair(number) for number, count in zip(ids, inliers, strict=True) if count]
    return sorted((min(a, b) - 1, max(a, b) - 1) for a, b in both)


def matches_across(pycolmap: Any, database: Path, pairs: Pairs, pieces: list[Piece]) -> np.ndarray:
    """Return matches `[M, 4]` (frame, feature, frame, feature) between frames that no one window has both of."""
    within = {(int(piece.frames[0]), int(piece.frames[-1])) for piece in pieces}
    rows = [np.zeros((0, 4), np.int64)]
    with pycolmap.Database.open(str(database)) as opened:
        for first, second in pairs:
            if any(start <= first and second <= stop for start, stop in within):
                continue
            found = opened.read_two_view_geometry(first + 1, second + 1).inlier_matches.astype(np.int64)
            found = found[:: max(len(found) // _MATCHES_READ, 1)]
            sides = [np.full(len(found), first), found[:, 0], np.full(len(found), second), found[:, 1]]
            rows.append(np.stack(sides, axis=1))
    return np.concatenate(rows)


def model_of_windows(pycolmap: Any, database: Path, pieces: list[Piece], joined: Joined, pairs: Pairs) -> tuple[Any, np.ndarray]:
    """Return the model of windows that were joined, and the features `[O, 2]` (frame, feature) in order of its observations.

    Image `frame + 1` of the model has those features alone that see a point.
    """
    matches = matches_across(pycolmap, database, pairs, [pieces[index] for index in joined.members])
    xyz, frame, feature, point = join_points(pieces, joined, matches)
    stays = thin_points(frame, point, PER_FRAME)
    order = np.lexsort((feature[stays], frame[stays]))
    frame, feature, point = (values[stays][order] for values in (frame, feature, point))
    bounds = np.searchsorted(frame, np.arange(int(joined.frames[-1]) + 2))
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(database)) as opened:
        camera = opened.read_camera(1)
        model.add_camera_with_trivial_rig(camera)
        for index, pose in zip(joined.frames.tolist(), invert_rigid(joined.world_from_camera), strict=True):
            here = feature[bounds[index] : bounds[index + 1]]
            xy = np.asarray(opened.read_keypoints(index + 1), np.float64)[here, :2]
            image = pycolmap.Image(keypoints=xy.reshape(-1, 2), camera_id=camera.camera_id, image_id=index + 1)
            model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    local = np.arange(len(frame)) - bounds[frame]
    by_point = np.argsort(point, kind="stable")
    for rows in np.split(by_point, np.flatnonzero(np.diff(point[by_point])) + 1):
        if len(rows):
            track = pycolmap.Track()
            for row in rows:
                track.add_element(int(frame[row]) + 1, int(local[row]))
            model.add_point3D(xyz[point[rows[0]]], track)
    return model, np.stack([frame, feature], axis=1)


def adjust(pycolmap: Any, model: Any, calibrated: bool) -> None:
    """Adjust poses, points and (where it is not known) the lens together; what does not fit then is left out."""
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = not calibrated
    options.ceres.loss_function_type = pycolmap.LossFunctionType.HUBER
    # conjugate gradients: on 333 frames to the same error in 6 s instead of 26 s, which grow with the cube of the frames
    options.ceres.auto_select_solver_type = True
    options.ceres.max_num_images_direct_sparse_cpu_solver = _FACTORED_FRAMES
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.max_num_iterations = 30
    options.ceres.solver_options.function_tolerance = 1e-5  # as global mapping does; by default there is none
    pycolmap.bundle_adjustment(model, options)
    pycolmap.ObservationManager(model).filter_all_points3D(_MAX_ERROR_PX, 0.0)
    model.update_point_3d_errors()


def judge_pairs(pycolmap: Any, database: Path, model: Any, features: np.ndarray, pairs: Pairs, apart: int) -> Agreement:
    """Hold a model against the matches between neighbours, and between frames `apart` or more that show the same place.

    A pair agrees if most of its matches whose one feature sees a point find that point where the other feature is, to 1 % of
    the image's longer side. A leap in the path, or a window put in the wrong place, cannot do that.

    Args:
        pycolmap: the module.
        database: with the matches.
        model: adjusted.
        features: of its observations, as `model_of_windows` returns.
        pairs: verified ones.
        apart: number of frames from which a pair is a return.
    """
    placed = sorted(number - 1 for number in model.reg_image_ids())
    verified, neighbours = set(pairs), set(itertools.pairwise(placed))
    seen = points_by_frame(model, features, placed)
    returns = [pair for pair in pairs if pair[1] - pair[0] >= apart and pair[0] in seen and pair[1] in seen]
    agrees: dict[tuple[int, int], bool] = {}
    camera = model.camera(1)
    limit = _AGREES_LIMIT * max(camera.width, camera.height)
    with pycolmap.Database.open(str(database)) as opened:
        for first, second in [*sorted(neighbours & verified), *returns]:
            found = opened.read_two_view_geometry(first + 1, second + 1).inlier_matches.astype(np.int64)
            feature, xyz = seen[first]
            _, at, row = np.intersect1d(feature, found[:, 0], return_indices=True)
            if len(at) < _FEWEST_MATCHES:
                continue
            there = np.asarray(opened.read_keypoints(second + 1), np.float64)[found[row, 1], :2]
            pose = model.image(second + 1).cam_from_world().matrix()
            projected = camera.img_from_cam(xyz[at] @ pose[:, :3].T + pose[:, 3])
            error = np.linalg.norm(projected - there, axis=1)  # not a number where the point lies behind
            agrees[first, second] = bool(np.mean(error < limit) >= _AGREES_SHARE)
    judged = [agrees[pair] for pair in returns if pair in agrees]
    edges = [pair for pair in neighbours if agrees.get(pair, True)] + [pair for pair in returns if agrees.get(pair, False)]
    return Agreement(_largest_part(np.array(placed), edges), len(judged), len(judged) - sum(judged))


def points_by_frame(model: Any, features: np.ndarray, placed: list[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return for every frame which of its features see a point, increasing, and those points `[N, 3]`."""
    bounds = np.searchsorted(features[:, 0], np.arange(placed[-1] + 2))
    xyz = {number: point.xyz for number, point in model.points3D.items()}
    found = {}
    for frame in placed:
        points2d = model.image(frame + 1).points2D
        local = [index for index, item in enumerate(points2d) if item.has_point3D()]
        there = np.array([xyz[points2d[index].point3D_id] for index in local]).reshape(-1, 3)
        found[frame] = (features[bounds[frame] : bounds[frame + 1], 1][local], there)
    return found


def _largest_part(placed: Int[np.ndarray, " F"], edges: Pairs) -> Int[np.ndarray, " K"]:
    a, b = np.searchsorted(placed, np.array(edges, np.int64).reshape(-1, 2)).T
    of_frame = connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(len(placed), len(placed))), directed=False)[1]
    part: Int[np.ndarray, " K"] = placed[of_frame == np.argmax(np.bincount(of_frame))]
    return part
