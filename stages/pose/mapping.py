"""Structure from motion by COLMAP in a process of its own: `python -m stages.pose.mapping FOLDER`.

The folder holds `request.json` (a `MapRequest`), the frames as `images/000000.png`, ..., and where the request says so their
masks as `masks/000000.png.png`, ... (0: no features here); the result is `result.npz`.
Standard output carries one JSON list `[done, total, note]` per step. COLMAP lives apart because it logs to standard error,
installs signal handlers, cannot be interrupted from Python, and brings its own zlib: with pycolmap imported before
OpenCV, writing a PNG with OpenCV aborts the process.

Method: SIFT (Lowe 2004) with root-L1 descriptors, matching of neighbours in time, and global mapping (GLOMAP: Pan et al.,
Global Structure-from-Motion Revisited, ECCV 2024). Where that leaves frames out, incremental mapping (Schoenberger and
Frahm, CVPR 2016) is tried and the better of the two is kept.
"""

import dataclasses
import json
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldline.cameras import invert_rigid, rigid

_EXTRACT, _MATCH, _MAP = 35, 30, 35  # shares of the work, for progress


@dataclass(frozen=True)
class MapRequest:
    """What to reconstruct and how; see `stages.pose.colmap.ColmapConfig` for the meaning of the options.

    Attributes:
        frames, width, height: number and size of the images.
        camera_model: COLMAP's name, "PINHOLE" or "SIMPLE_RADIAL".
        camera_params: its parameters, exact where `calibrated`, else a first guess.
        calibrated: whether the intrinsics are held fixed.
        masked: whether there are masks.
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
    upsample_below_px: int
    overlap: int
    tracks_per_view: int
    min_observations: int
    incremental_below: float
    masked: bool = False


def image_name(index: int) -> str:
    """Return the file name of a frame."""
    return f"{index:06d}.png"


def sequential_pairs(count: int, overlap: int) -> list[tuple[int, int]]:
    """Return pairs of frames up to `overlap` apart, and at powers of two beyond it (long baselines for slow motion)."""
    steps = {*range(1, overlap + 1), *(2**power for power in range(overlap + 1))}
    return [(first, first + step) for first in range(count) for step in sorted(steps) if first + step < count]


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
    """Find SIFT features in all frames."""
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = request.max_image_size
    options.sift.max_num_features = request.max_features
    options.sift.peak_threshold = request.peak_threshold
    reader = pycolmap.ImageReaderOptions()
    if request.masked:
        reader.mask_path = str(folder / "masks")
    options.sift.first_octave = -1 if max(request.width, request.height) < request.upsample_below_px else 0
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
        report(_EXTRACT * stop / request.frames, f"features in {stop}/{request.frames} frames")


def match(pycolmap: Any, folder: Path, request: MapRequest, report: Any) -> None:
    """Match neighbouring frames and verify the matches by two-view geometry.

    On one thread: COLMAP 4.2's threads share the search index of a frame, and with two a few matches came out otherwise in
    one run of forty on a quiet machine. Measured on 80 frames: 8.1 s instead of 6.5 s.
    """
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = request.seed
    pairs = sequential_pairs(request.frames, request.overlap)
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
        report(_EXTRACT + _MATCH * done / len(pairs), f"matched {done}/{len(pairs)} pairs")


def map_globally(pycolmap: Any, folder: Path, request: MapRequest) -> list[Any]:
    """Run global mapping on one thread: measured as fast as two, and the same bytes every time."""
    database = str(folder / "colmap.db")
    if not request.calibrated:
        calibration = pycolmap.ViewGraphCalibrationOptions()
        calibration.random_seed = request.seed
        pycolmap.calibrate_view_graph(database, calibration)
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = options.mapper.num_threads = 1
    # every part has a seed of its own, and by default draws from a generator that others share
    mapper = options.mapper
    for part in (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation):
        part.random_seed = request.seed
    # a few hundred long tracks per view fix the cameras; the others are triangulated afterwards. Twice as fast as all
    options.mapper.track_required_tracks_per_view = request.tracks_per_view
    options.mapper.global_positioning.use_gpu = False
    adjustment = options.mapper.bundle_adjustment
    adjustment.ceres.use_gpu = False
    adjustment.ceres.solver_options.num_threads = 1
    adjustment.refine_focal_length = adjustment.refine_extra_params = not request.calibrated
    output = folder / "global"
    output.mkdir()
    models = pycolmap.global_mapping(database, str(folder / "images"), str(output), options)
    return list(models.values())


def map_incrementally(pycolmap: Any, folder: Path, request: MapRequest) -> list[Any]:
    """Run incremental mapping with a start that forward driving and short clips can meet (defaults want 16 degrees)."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = request.seed
    options.min_model_size = 2
    options.ba_refine_focal_length = options.ba_refine_extra_params = not request.calibrated
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = not request.calibrated
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_min_num_inliers = 50
    output = folder / "incremental"
    output.mkdir()
    models = pycolmap.incremental_mapping(str(folder / "colmap.db"), str(folder / "images"), str(output), options)
    return list(models.values())


def usable_images(model: Any, min_observations: int) -> list[Any]:
    """Return the posed images of a model that enough of its points are seen in, in frame order."""
    images = [image for image in model.images.values() if image.has_pose and image.num_points3D >= min_observations]
    return sorted(images, key=lambda image: image.image_id)


def reconstruct(pycolmap: Any, folder: Path, request: MapRequest, report: Any) -> tuple[Any, str]:
    """Return the model with most usable frames, or None, and the name of the method that made it."""

    def best(models: list[Any]) -> Any:
        return max(models, key=lambda model: len(usable_images(model, request.min_observations)), default=None)

    def registered(model: Any) -> int:
        return 0 if model is None else len(usable_images(model, request.min_observations))

    report(_EXTRACT + _MATCH, "global mapping")
    model, method = best(map_globally(pycolmap, folder, request)), "global"
    if registered(model) < request.incremental_below * request.frames:
        report(
            _EXTRACT + _MATCH + _MAP / 2,
            f"global mapping placed {registered(model)}/{request.frames} frames; incremental mapping",
        )
        other = best(map_incrementally(pycolmap, folder, request))
        if registered(other) > registered(model):
            model, method = other, "incremental"
    if registered(model) < 2:
        return None, "none"
    report(_EXTRACT + _MATCH + _MAP, f"{registered(model)}/{request.frames} frames placed by {method} mapping")
    return model, method


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
        rows += [(image_id - 1, len(xyz), *position[image_id][k]) for image_id, k in seen]
        xyz.append(point.xyz)
        errors.append(point.error)
    observations = np.array(rows, np.float64).reshape(-1, 4)
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
        "observation_xy_px": observations[:, 2:].astype(np.float32),
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
    match(pycolmap, folder, request, report)
    model, method = reconstruct(pycolmap, folder, request, report)
    arrays = {} if model is None else arrays_of(model, request)
    arrays["method"] = np.array(method)
    np.savez(folder / "result.npz", **arrays)  # type: ignore[arg-type]


def write_request(folder: Path, request: MapRequest) -> None:
    """Write `request.json`."""
    (folder / "request.json").write_text(json.dumps(dataclasses.asdict(request)))


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone: its end of our standard input closes."""
    while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter shuts down
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    run(Path(sys.argv[1]))
