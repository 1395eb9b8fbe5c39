"""Structure from motion by COLMAP in a process of its own: `python -m stages.pose.mapping FOLDER`.

The folder holds `request.json` (a `MapRequest`), the frames as `images/000000.png`, ..., and where the request says so their
masks as `masks/000000.png.png`, ... (0: no features here) and corners followed by optical flow as `tracks.npz`; the result is
`result.npz`. Where it holds `poses.npz` as well, these poses stand and only points are made.
Standard output carries one JSON list `[done, total, note]` per step. COLMAP lives apart because it logs to standard error,
installs signal handlers, cannot be interrupted from Python, and brings its own zlib: with pycolmap imported before
OpenCV, writing a PNG with OpenCV aborts the process.

Method: SIFT (Lowe 2004) with root-L1 descriptors, matching of chosen pairs (`stages.pose.pairs`), and global mapping (GLOMAP:
Pan et al., Global Structure-from-Motion Revisited, ECCV 2024). Frames that this leaves out are added one by one by
incremental mapping (Schoenberger and Frahm, CVPR 2016), and where many are still missing it starts anew; the model with most
frames is kept. Long clips are mapped in windows (`stages.pose.windows`), joined, and adjusted as one.
"""

import dataclasses
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.pose.pairs import Pairs, alike_pairs, exhaustive_pairs, loop_gap, loop_pairs, pairs_around, sequential_pairs
from stages.pose.retrieval import image_signatures
from stages.pose.window_model import adjust, judge_pairs, model_of_windows, verified_pairs
from stages.pose.windows import Piece, join_poses, joint_between
from worldline.cameras import invert_rigid, rigid

_EXTRACT, _MATCH, _MAP = 35, 30, 35  # shares of the work, for progress
_WORDS = 32  # of an image's signature
_FACTORED_FRAMES = 100  # up to which global mapping factors its normal equations


@dataclass(frozen=True)
class MapRequest:
    """What to reconstruct and how; see `stages.pose.colmap.ColmapConfig` for the meaning of the options.

    Attributes:
        frames, width, height: number and size of the images.
        camera_model: COLMAP's name, "PINHOLE", "SIMPLE_RADIAL", "RADIAL" or "OPENCV".
        camera_params: its parameters, exact where `calibrated`, else a first guess.
        calibrated: whether the intrinsics are held fixed.
        masked: whether there are masks.
        followed: whether there are corners followed by optical flow.
        double: whether images are doubled in size for feature extraction.
        pairing, loop_neighbours: as in `stages.pose.strategy.Strategy`; 0 looks for no loops.
        windows: ranges of frames that are mapped one by one.
        mapper: "auto", "global" or "incremental".
    """

    frames: int
    width: int
    height: int
    camera_model: str
    camera_params: list[float]
    calibrated: bool
    seed: int
    max_features: int
    max_image_size: int
    peak_threshold: float
    few_features: int
    double: bool
    pairing: str
    overlap: int
    loop_neighbours: int
    loop_matches: int
    photo_neighbours: int
    windows: list[list[int]]
    mapper: str
    tracks_per_view: int
    min_observations: int
    incremental_below: float
    masked: bool = False
    followed: bool = False


def image_name(index: int) -> str:
    """Return the file name of a frame."""
    return f"{index:06d}.png"


def prepare_database(pycolmap: Any, path: Path, request: MapRequest) -> None:
    """Register camera and images in order, so that ids do not depend on which thread finishes first."""
    with pycolmap.Database.open(str(path)) as database:
        camera = pycolmap.Camera(
            model=request.camera_model, width=request.width, height=request.height, params=request.camera_params
        )
        camera.has_prior_focal_length = request.calibrated
        camera.camera_id = database.write_camera(camera)
        rig = pycolmap.Rig()
        rig.add_ref_sensor(camera.sensor_id)
        rig.rig_id = database.write_rig(rig)
        for index in range(request.frames):
            image = pycolmap.Image(name=image_name(index), camera_id=camera.camera_id)
            image.image_id = database.write_image(image)
            frame = pycolmap.Frame()
            frame.rig_id = rig.rig_id
            frame.add_data_id(image.data_id)
            database.write_frame(frame)


def extract(pycolmap: Any, folder: Path, request: MapRequest, report: Any) -> None:
    """Find SIFT features in all frames; where the median frame has few, look again for smaller and fainter ones."""
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = request.max_image_size
    options.sift.max_num_features = request.max_features
    options.sift.peak_threshold = request.peak_threshold
    options.sift.first_octave = -1 if request.double else 0
    _extract_all(pycolmap, folder, request, options, lambda done, note: report(_EXTRACT * done, note))
    with pycolmap.Database.open(str(folder / "colmap.db")) as database:
        found = [database.num_keypoints_for_image(index + 1) for index in range(request.frames)]
        if np.median(found) >= request.few_features:
            return
        database.clear_keypoints()
        database.clear_descriptors()
    options.sift.peak_threshold = request.peak_threshold / 4
    options.sift.first_octave = -1
    _extract_all(pycolmap, folder, request, options, lambda done, note: report(_EXTRACT, f"few features: again, {note}"))


def _extract_all(pycolmap: Any, folder: Path, request: MapRequest, options: Any, report: Any) -> None:
    reader = pycolmap.ImageReaderOptions()
    if request.masked:
        reader.mask_path = str(folder / "masks")
    chunk = 8
    for start in range(0, request.frames, chunk):
        stop = min(start + chunk, request.frames)
        names = [image_name(index) for index in range(start, stop)]
        pycolmap.extract_features(
            str(folder / "colmap.db"),
            str(folder / "images"),
            image_names=names,
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
        report(stop / request.frames, f"features in {stop}/{request.frames} frames")


def match(pycolmap: Any, folder: Path, request: MapRequest, report: Any) -> int:
    """Match the frames that the request pairs, and verify the matches by two-view geometry.

    Frames of a video that are far apart in time but look alike are tried as well: those with enough matches are loops, and
    the pairs around them are matched, too.

    Returns:
        The number of loops.
    """
    pairs = chosen_pairs(pycolmap, folder, request)
    match_pairs(pycolmap, folder, request, pairs, lambda done, note: report(_EXTRACT + 0.9 * _MATCH * done, note))
    if not request.loop_neighbours:
        return 0
    candidates = sorted(
        set(loop_pairs(signatures(pycolmap, folder, request), request.overlap, request.loop_neighbours)) - set(pairs)
    )
    match_pairs(pycolmap, folder, request, candidates, lambda done, note: report(_EXTRACT + 0.9 * _MATCH, f"loops: {note}"))
    loops = keep_strong(pycolmap, folder, request, candidates)
    around = pairs_around(loops, request.frames, pairs + candidates)
    match_pairs(pycolmap, folder, request, around, lambda done, note: report(_EXTRACT + _MATCH, f"around loops: {note}"))
    keep_strong(pycolmap, folder, request, around)
    return len(loops)


def chosen_pairs(pycolmap: Any, folder: Path, request: MapRequest) -> Pairs:
    """Return the pairs of frames that are matched first."""
    if request.pairing == "sequential":
        return sequential_pairs(request.frames, request.overlap)
    if request.pairing == "exhaustive":
        return exhaustive_pairs(request.frames)
    return alike_pairs(signatures(pycolmap, folder, request), request.photo_neighbours)


def signatures(pycolmap: Any, folder: Path, request: MapRequest) -> np.ndarray:
    """Return the signatures of all frames from the features in the database."""
    with pycolmap.Database.open(str(folder / "colmap.db")) as database:
        return image_signatures(
            lambda index: database.read_descriptors(index + 1).data.reshape(-1, 128), request.frames, _WORDS, request.seed
        )


def keep_strong(pycolmap: Any, folder: Path, request: MapRequest, pairs: Pairs) -> Pairs:
    """Return the pairs with enough verified matches and forget those of the others: what looks alike may not be the same."""
    kept = []
    with pycolmap.Database.open(str(folder / "colmap.db")) as database:
        for first, second in pairs:
            if not database.exists_two_view_geometry(first + 1, second + 1):
                continue
            if len(database.read_two_view_geometry(first + 1, second + 1).inlier_matches) >= request.loop_matches:
                kept.append((first, second))
            else:
                database.delete_two_view_geometry(first + 1, second + 1)
    return kept


def match_pairs(pycolmap: Any, folder: Path, request: MapRequest, pairs: Pairs, report: Any) -> None:
    """Match pairs of frames and verify the matches.

    On one thread: COLMAP 4.2's threads share the search index of a frame, and with two a few matches came out otherwise in
    one run of forty on a quiet machine. Measured on 80 frames: 8.1 s instead of 6.5 s.
    """
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = request.seed
    listing, chunk = folder / "pairs.txt", 100
    for start in range(0, len(pairs), chunk):
        part = pairs[start : start + chunk]
        listing.write_text("\n".join(f"{image_name(a)} {image_name(b)}" for a, b in part))
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = str(listing)
        pycolmap.match_image_pairs(
            str(folder / "colmap.db"),
            matching_options=matching,
            pairing_options=pairing,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )
        done = start + len(part)
        report(done / len(pairs), f"matched {done}/{len(pairs)} pairs")


def add_tracks(pycolmap: Any, folder: Path, request: MapRequest, report: Any) -> None:
    """Add corners followed by optical flow to the features, and to the matches of the pairs that see the same ones."""
    with np.load(folder / "tracks.npz") as archive:
        of_frame, number, xy = archive["frame"], archive["track"], archive["xy"]
    bounds = np.searchsorted(of_frame, np.arange(request.frames + 1))
    listing = folder / "pairs.txt"
    pairs: list[str] = []
    with pycolmap.Database.open(str(folder / "colmap.db")) as database:
        described = []
        for index in range(request.frames):
            known = np.asarray(database.read_keypoints(index + 1), np.float32)
            added = np.zeros((bounds[index + 1] - bounds[index], known.shape[1] if known.size else 2), np.float32)
            added[:, :2] = xy[bounds[index] : bounds[index + 1]]
            if added.shape[1] > 2:
                added[:, 2] = 1.0  # scale, or the first element of the affine shape
            if added.shape[1] == 6:
                added[:, 5] = 1.0
            described.append(len(known))
            database.update_keypoints(index + 1, np.concatenate([known, added]) if known.size else added)
        for first, second in sequential_pairs(request.frames, request.overlap):
            a, b = (number[bounds[index] : bounds[index + 1]] for index in (first, second))
            _, at_first, at_second = np.intersect1d(a, b, assume_unique=True, return_indices=True)
            if not len(at_first):
                continue
            matches = np.stack([at_first + described[first], at_second + described[second]], axis=1).astype(np.uint32)
            if database.exists_matches(first + 1, second + 1):
                matches = np.concatenate([database.read_matches(first + 1, second + 1).reshape(-1, 2), matches])
                database.delete_matches(first + 1, second + 1)
            if database.exists_two_view_geometry(first + 1, second + 1):
                database.delete_two_view_geometry(first + 1, second + 1)
            database.write_matches(first + 1, second + 1, matches)
            pairs.append(f"{image_name(first)} {image_name(second)}")
    listing.write_text("\n".join(pairs))
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = request.seed
    pycolmap.verify_matches(str(folder / "colmap.db"), str(listing), verification)
    report(_EXTRACT + _MATCH, f"corners followed through {request.frames} frames")


def calibrate(pycolmap: Any, folder: Path, request: MapRequest) -> Path:
    """Return the database that global mapping reads: with focal lengths from the view graph where they are not known.

    Calibration drops pairs that it cannot explain, and a frame may hang on those alone: it works on a copy.
    """
    database = folder / "colmap.db"
    if request.calibrated:
        return database
    copy = folder / "calibrated.db"
    shutil.copyfile(database, copy)
    options = pycolmap.ViewGraphCalibrationOptions()
    options.random_seed = request.seed
    pycolmap.calibrate_view_graph(str(copy), options)
    return copy


def global_options(pycolmap: Any, request: MapRequest, frames: range) -> Any:
    """Return options of global mapping on one thread: measured as fast as two, and the same bytes every time."""
    options = pycolmap.GlobalPipelineOptions()
    options.image_names = [image_name(index) for index in frames]
    options.num_threads = options.mapper.num_threads = 1
    # every part has a seed of its own, and by default draws from a generator that others share
    mapper = options.mapper
    for part in (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation):
        part.random_seed = request.seed
    # a few hundred long tracks per view fix the cameras; the others are triangulated afterwards. Twice as fast as all
    options.mapper.track_required_tracks_per_view = request.tracks_per_view
    # by default longer tracks than 100 views are dropped, and with them what is seen again on every pass and while the camera
    # stands. Measured on 200 frames to and fro: 34 cm of error where a fifth of the frames was the limit, 2.6 cm without one
    options.mapper.track_max_num_views_per_track = len(frames)
    options.mapper.global_positioning.use_gpu = False
    adjustment = options.mapper.bundle_adjustment
    adjustment.ceres.use_gpu = False
    if len(frames) > _FACTORED_FRAMES:  # conjugate gradients: on 200 frames 33 s instead of 51 s, and as exact
        adjustment.ceres.auto_select_solver_type = True
        adjustment.ceres.max_num_images_direct_sparse_cpu_solver = _FACTORED_FRAMES
    adjustment.ceres.solver_options.num_threads = 1
    adjustment.refine_focal_length = adjustment.refine_extra_params = not request.calibrated
    return options


def map_globally(pycolmap: Any, folder: Path, database: Path, options: Any) -> list[Any]:
    """Run global mapping."""
    models = pycolmap.global_mapping(str(database), str(folder / "images"), str(_empty(folder / "global")), options)
    return list(models.values())


def incremental_options(pycolmap: Any, request: MapRequest, frames: range) -> Any:
    """Return options of incremental mapping that forward driving and short clips can start with (defaults want 16 degrees)."""
    options = pycolmap.IncrementalPipelineOptions()
    options.image_names = [image_name(index) for index in frames]
    options.num_threads = 1
    options.random_seed = request.seed
    options.min_model_size = 2
    options.ba_refine_focal_length = options.ba_refine_extra_params = not request.calibrated
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = not request.calibrated
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_min_num_inliers = 50
    return options


def map_incrementally(pycolmap: Any, folder: Path, options: Any) -> list[Any]:
    """Run incremental mapping from scratch."""
    output = _empty(folder / "incremental")
    models = pycolmap.incremental_mapping(str(folder / "colmap.db"), str(folder / "images"), str(output), options)
    return list(models.values())


def add_frames(pycolmap: Any, folder: Path, request: MapRequest, frames: range, model: Any) -> Any:
    """Return a model to which incremental mapping has added what frames it could, adjusted as a whole."""
    options = incremental_options(pycolmap, request, frames)
    options.multiple_models = False
    # where views are far apart most points are seen by two alone, and the missing frames need every point to hang on
    options.triangulation.ignore_two_view_tracks = False
    database, images = str(folder / "colmap.db"), str(folder / "images")
    start = _empty(folder / "start")
    pycolmap.triangulate_points(model, database, images, str(start), True, options, not request.calibrated).write(str(start))
    models = pycolmap.incremental_mapping(database, images, str(_empty(folder / "added")), options, input_path=str(start))
    return next(iter(models.values()), model)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def usable_images(model: Any, min_observations: int) -> list[Any]:
    """Return the posed images of a model that enough of its points are seen in, in frame order."""
    images = [image for image in model.images.values() if image.has_pose and image.num_points3D >= min_observations]
    return sorted(images, key=lambda image: image.image_id)


def reconstruct(
    pycolmap: Any, folder: Path, database: Path, request: MapRequest, frames: range, report: Callable[[float, str], None]
) -> tuple[Any, str]:
    """Return the model of a range of frames with most usable ones, or None, and how it was made."""

    def placed(model: Any) -> int:
        return 0 if model is None else len(usable_images(model, request.min_observations))

    model, how = None, "none"
    if request.mapper != "incremental":
        report(0.0, "global mapping")
        options = global_options(pycolmap, request, frames)
        model, how = max(map_globally(pycolmap, folder, database, options), key=placed, default=None), "global mapping"
        if request.mapper == "auto" and 2 < placed(model) < len(frames):
            report(0.5, f"global mapping placed {placed(model)}/{len(frames)} frames; adding the others")
            more = add_frames(pycolmap, folder, request, frames, model)
            if (added := placed(more) - placed(model)) > 0:
                model, how = more, f"global mapping and {added} frames added incrementally"
    enough = request.incremental_below * len(frames)
    if request.mapper == "incremental" or (request.mapper == "auto" and placed(model) < enough):
        report(0.7, f"{placed(model)}/{len(frames)} frames placed; incremental mapping")
        from_scratch = incremental_options(pycolmap, request, frames)
        other = max(map_incrementally(pycolmap, folder, from_scratch), key=placed, default=None)
        if placed(other) > placed(model):
            model, how = other, "incremental mapping"
    if placed(model) < 2:
        return None, "none"
    report(1.0, f"{placed(model)}/{len(frames)} frames placed by {how}")
    return model, how


def reconstruct_windows(
    pycolmap: Any, folder: Path, database: Path, request: MapRequest, report: Callable[[float, str], None]
) -> tuple[Any, str]:
    """Map a long clip window by window, join the windows, and adjust all; one window's matches are held at a time.

    What the first window finds of the lens holds for those after it; the last adjustment refines it where it is not known.
    """
    pieces, hows = map_windows(pycolmap, folder, database, request, lambda done, note: report(0.8 * done, note))
    if not pieces:
        return None, "none"
    report(0.8, f"joining {len(pieces)} windows")
    joined = join_poses(pieces)
    pairs = verified_pairs(pycolmap, folder / "colmap.db")
    model, features = model_of_windows(pycolmap, folder / "colmap.db", pieces, joined, pairs)
    report(0.85, f"adjusting {len(joined.frames)} frames of {len(joined.members)} windows")
    adjust(pycolmap, model, request.calibrated)
    report(0.95, "holding the path against the matches")
    gap = loop_gap(request.frames, request.overlap)
    agreement = judge_pairs(pycolmap, folder / "colmap.db", model, features, pairs, gap)
    left_out = sorted(set(joined.frames.tolist()) - set(agreement.kept.tolist()))
    for frame in left_out:
        model.deregister_frame(model.image(frame + 1).frame_id)
    mixed = "; ".join(sorted({hows[index] for index in joined.members}))
    parts = [f"{mixed} in {len(request.windows)} windows, {len(joined.members)} of them joined and adjusted as one"]
    if left_out:
        parts.append(f"{len(left_out)} frames left out because matches contradict where they would lie")
    if agreement.contradicted:
        parts.append(f"{agreement.contradicted} of {agreement.returns} returns to the same place contradict the path")
    return model, ", ".join(parts)


def map_windows(
    pycolmap: Any, folder: Path, database: Path, request: MapRequest, report: Callable[[float, str], None]
) -> tuple[list[Piece], list[str]]:
    """Map every window by itself, in order, and return those that could be mapped, and how.

    Two neighbours that contradict each other on the frames that they share cannot both be right: the later one is mapped
    incrementally, then the earlier one.
    """
    pieces: list[Piece] = []
    hows: list[str] = []
    count = len(request.windows)

    def solve(number: int, mapper: str) -> tuple[Piece, str] | None:
        def of_window(done: float, note: str) -> None:
            report((number + done) / count, f"window {number + 1}/{count}: {note}")

        held = dataclasses.replace(request, mapper=mapper, calibrated=request.calibrated or bool(pieces))
        model, how = reconstruct(pycolmap, folder, database, held, range(*request.windows[number]), of_window)
        if model is None:
            return None
        arrays = arrays_of(model, request)
        if not pieces:
            for path in {folder / "colmap.db", database}:
                hold_camera(pycolmap, path, arrays["camera_params"])
        return Piece(**{item.name: arrays[item.name] for item in dataclasses.fields(Piece)}), how

    numbers: list[int] = []
    for number in range(count):
        found = solve(number, request.mapper)
        if found is None:
            continue
        earlier = None
        if request.mapper == "auto" and numbers and numbers[-1] == number - 1 and not fit(pieces[-1], found[0]):
            again = solve(number, "incremental")
            if again is not None and fit(pieces[-1], again[0]):
                found = again
            else:
                earlier = solve(number - 1, "incremental")
                if earlier is not None and (len(pieces) == 1 or fit(pieces[-2], earlier[0])):
                    later = next((one for one in (found, again) if one is not None and fit(earlier[0], one[0])), None)
                    if later is not None:
                        found, (pieces[-1], hows[-1]) = later, earlier
        pieces.append(found[0])
        hows.append(found[1])
        numbers.append(number)
    return pieces, hows


def fit(first: Piece, second: Piece) -> bool:
    """Whether two windows agree on the frames that they share."""
    joint = joint_between(first, second)
    return joint is not None and joint.holds


def hold_camera(pycolmap: Any, path: Path, params: np.ndarray) -> None:
    """Write the camera's parameters into a database as known."""
    with pycolmap.Database.open(str(path)) as database:
        camera = database.read_camera(1)
        camera.params = params
        camera.has_prior_focal_length = True
        database.update_camera(camera)


def triangulate(pycolmap: Any, folder: Path, request: MapRequest, frames: np.ndarray, world_from_camera: np.ndarray) -> Any:
    """Return a model of frames with given poses, held as they are, and the points that they see; no images where nothing matches.

    Schoenberger and Frahm, Structure-from-Motion Revisited, CVPR 2016, section 4.3.
    """
    options = incremental_options(pycolmap, request, range(request.frames))
    with pycolmap.Database.open(str(folder / "colmap.db")) as database:
        cache = pycolmap.DatabaseCache.create(database, pycolmap.DatabaseCacheOptions())
    model = pycolmap.Reconstruction()
    model.load(cache)
    for index, pose in zip(frames.tolist(), invert_rigid(world_from_camera), strict=True):
        if index + 1 in model.images:  # COLMAP leaves out frames that match no other
            frame_id = model.images[index + 1].frame_id
            model.frame(frame_id).rig_from_world = pycolmap.Rigid3d(pose[:3])
            model.register_frame(frame_id)
    if model.num_reg_images() < 2:
        return model
    output = str(_empty(folder / "triangulated"))
    return pycolmap.triangulate_points(model, str(folder / "colmap.db"), str(folder / "images"), output, True, options, False)


def arrays_of(model: Any, request: MapRequest) -> dict[str, np.ndarray]:
    """Copy a COLMAP model into arrays; frame indices are image ids less one."""
    images = usable_images(model, request.min_observations)
    frames = np.array([image.image_id - 1 for image in images], np.int32)
    camera_from_world = np.stack([image.cam_from_world().matrix() for image in images])
    position: dict[int, dict[int, np.ndarray]] = {}
    for image in images:
        points2d = image.points2D
        position[image.image_id] = {k: points2d[k].xy for k in image.get_observation_point2D_idxs()}
    rows: list[tuple[float, ...]] = []
    xyz: list[np.ndarray] = []
    errors: list[float] = []
    for point_id in sorted(model.points3D):
        point = model.points3D[point_id]
        seen = sorted((e.image_id, e.point2D_idx) for e in point.track.elements if e.image_id in position)
        if len({image_id for image_id, _ in seen}) < 2:
            continue
        rows += [(image_id - 1, len(xyz), k, *position[image_id][k]) for image_id, k in seen]
        xyz.append(point.xyz)
        errors.append(point.error)
    observations = np.array(rows, np.float64).reshape(-1, 5)
    camera = images[0].camera
    return {
        "frames": frames,
        "world_from_camera": invert_rigid(rigid(camera_from_world[:, :, :3], camera_from_world[:, :, 3])),
        "camera_model": np.array(request.camera_model),
        "camera_params": np.array(camera.params, np.float64),
        "xyz": np.array(xyz, np.float64).reshape(-1, 3),
        "error_px": np.array(errors, np.float32),
        "observation_frame": observations[:, 0].astype(np.int32),
        "observation_point": observations[:, 1].astype(np.int32),
        "observation_feature": observations[:, 2].astype(np.int32),
        "observation_xy_px": observations[:, 3:].astype(np.float32),
    }


def run(folder: Path) -> None:
    """Reconstruct what `folder` asks for, and write `result.npz` there (empty where nothing could be placed)."""
    import pycolmap

    def report(done: float, note: str) -> None:
        print(json.dumps([round(done), _EXTRACT + _MATCH + _MAP, note]), flush=True)

    request = MapRequest(**json.loads((folder / "request.json").read_text()))
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    pycolmap.set_random_seed(request.seed)
    prepare_database(pycolmap, folder / "colmap.db", request)
    extract(pycolmap, folder, request, report)
    loops = match(pycolmap, folder, request, report)
    if request.followed:
        add_tracks(pycolmap, folder, request, report)
    if (folder / "poses.npz").is_file():
        with np.load(folder / "poses.npz") as given:
            model, how = triangulate(pycolmap, folder, request, given["frames"], given["world_from_camera"]), "given poses"
        write_result(folder, model if model.num_reg_images() >= 2 else None, request, how, loops)
        return
    database = calibrate(pycolmap, folder, request)

    def of_mapping(done: float, note: str) -> None:
        report(_EXTRACT + _MATCH + _MAP * done, note)

    if len(request.windows) > 1:
        model, how = reconstruct_windows(pycolmap, folder, database, request, of_mapping)
    else:
        model, how = reconstruct(pycolmap, folder, database, request, range(request.frames), of_mapping)
    write_result(folder, model, request, how, loops)


def write_result(folder: Path, model: Any, request: MapRequest, how: str, loops: int) -> None:
    """Write `result.npz`; of a model that is None it tells no more than that."""
    arrays = {} if model is None else arrays_of(model, request)
    arrays["method"], arrays["loops"] = np.array(how), np.array(loops)
    np.savez(folder / "result.npz", **arrays)  # type: ignore[arg-type]


def write_request(folder: Path, request: MapRequest) -> None:
    """Write `request.json`."""
    (folder / "request.json").write_text(json.dumps(dataclasses.asdict(request)))


def leave_with_parent() -> None:
    """End this process when the one that started it is gone: its end of our standard input closes."""
    while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter shuts down
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=leave_with_parent, daemon=True).start()
    run(Path(sys.argv[1]))
