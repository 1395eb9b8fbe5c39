"""Structure from motion with rigs by COLMAP in a process of its own: `python -m stages.pose.rig_mapping FOLDER`.

As `stages.pose.mapping`, which says why COLMAP lives apart; the folder holds a `RigRequest`. Cameras that fire together are
sensors of one COLMAP rig: each set of their images has one pose, and the places of the cameras are held, refined from what
is given, or solved (global mapping starts these from rotation averaging; GLOMAP, Pan et al., ECCV 2024, with COLMAP 4's
rigs). A camera that fires at other times than the reference is mapped freely in the same world.
"""

import dataclasses
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.pose.mapping import (
    MapRequest,
    arrays_of,
    calibrate,
    extract,
    global_options,
    image_name,
    incremental_options,
    leave_with_parent,
    map_globally,
    map_incrementally,
    match_pairs,
    usable_images,
)

_STEPS = 100
_HELD_TOLERANCE = 1e-9  # with places held the scale of the world creeps: COLMAP's 1e-5 stopped 0.2 % short of it


@dataclass(frozen=True)
class RigCamera:
    """One camera in COLMAP's terms.

    Attributes:
        model, params, width, height: COLMAP's camera; exact where `MapRequest.calibrated`, else a first guess.
        coupled: whether it fires together with the reference and moves with it as one body.
        camera_from_rig: rows of `[3, 4]` where given.
    """

    model: str
    params: list[float]
    width: int
    height: int
    coupled: bool
    camera_from_rig: list[list[float]] | None


@dataclass(frozen=True)
class RigRequest:
    """What to reconstruct and how.

    Attributes:
        mapping: options shared with `stages.pose.mapping`; its frames are the images of all cameras.
        cameras: the reference first.
        image_camera, image_set: of each image, in the order of their names.
        pairs: of images to match.
        places: "hold" keeps given places as they are, "refine" adjusts them, "auto" refines where the cameras overlap enough.
        min_cross_matches: verified matches between a given camera and the others that "auto" asks for, per set.
    """

    mapping: MapRequest
    cameras: list[RigCamera]
    image_camera: list[int]
    image_set: list[int]
    pairs: list[tuple[int, int]]
    places: str
    min_cross_matches: int


def prepare_rig_database(pycolmap: Any, path: Path, request: RigRequest) -> list[Any]:
    """Register cameras, rigs, images and frames in order; return the cameras."""
    with pycolmap.Database.open(str(path)) as database:
        cameras, rigs = [], []
        for given in request.cameras:
            camera = pycolmap.Camera(model=given.model, width=given.width, height=given.height, params=given.params)
            camera.has_prior_focal_length = request.mapping.calibrated
            camera.camera_id = database.write_camera(camera)
            cameras.append(camera)
        shared = pycolmap.Rig()
        shared.add_ref_sensor(cameras[0].sensor_id)
        for camera, given in zip(cameras[1:], request.cameras[1:], strict=True):
            if given.coupled:
                place = None if given.camera_from_rig is None else pycolmap.Rigid3d(np.array(given.camera_from_rig))
                shared.add_sensor(camera.sensor_id, place)
        shared.rig_id = database.write_rig(shared)
        for camera, given in zip(cameras, request.cameras, strict=True):
            rig = shared
            if not given.coupled:
                rig = pycolmap.Rig()
                rig.add_ref_sensor(camera.sensor_id)
                rig.rig_id = database.write_rig(rig)
            rigs.append(rig)
        sets: dict[tuple[int, int], list[Any]] = {}
        for index, (number, in_set) in enumerate(zip(request.image_camera, request.image_set, strict=True)):
            image = pycolmap.Image(name=image_name(index), camera_id=cameras[number].camera_id)
            image.image_id = database.write_image(image)
            sets.setdefault((rigs[number].rig_id, in_set), []).append(image)
        for (rig_id, _), images in sets.items():
            frame = pycolmap.Frame()
            frame.rig_id = rig_id
            for image in images:
                frame.add_data_id(image.data_id)
            database.write_frame(frame)
    return cameras


def places_are_held(pycolmap: Any, folder: Path, request: RigRequest) -> bool:
    """Decide whether given places stay as they are: refining them needs matches with another camera."""
    given = [n for n, camera in enumerate(request.cameras) if n and camera.coupled and camera.camera_from_rig is not None]
    if request.places != "auto" or not given:
        return request.places == "hold"
    across = np.zeros(len(request.cameras), int)
    with pycolmap.Database.open(str(folder / "colmap.db")) as database:
        pair_ids, inliers = database.read_two_view_geometry_num_inliers()
    for pair_id, count in zip(pair_ids, inliers, strict=True):
        first, second = (request.image_camera[image_id - 1] for image_id in pycolmap.pair_id_to_image_pair(pair_id))
        if first != second:
            across[[first, second]] += count
    return bool(across[given].min() < request.min_cross_matches * len(set(request.image_set)))


def hold_places(options: Any) -> None:
    """Make all parts of global mapping keep the given places of the cameras."""
    mapper = options.mapper
    for part in (mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.bundle_adjustment):
        part.refine_sensor_from_rig = False


def adjust_held(pycolmap: Any, model: Any, options: Any) -> None:
    """Adjust a model whose scale its held places determine: no gauge is fixed, or two poses would pin the scale as it is."""
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.images.values():
        if image.has_pose:
            config.add_image(image.image_id)
    options.refine_sensor_from_rig = False
    options.ceres.solver_options.function_tolerance = _HELD_TOLERANCE
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


def reconstruct_rig(pycolmap: Any, folder: Path, request: RigRequest, held: bool, report: Any) -> tuple[Any, str]:
    """Return the model with most usable images, or None, and the name of the method that made it."""
    frames = range(request.mapping.frames)
    options = global_options(pycolmap, request.mapping, frames)
    if held:
        hold_places(options)

    def usable(model: Any) -> int:
        return len(usable_images(model, request.mapping.min_observations))

    database = calibrate(pycolmap, folder, request.mapping)
    report(65, "global mapping")
    model, method = max(map_globally(pycolmap, folder, database, options), key=usable, default=None), "global"
    found = 0 if model is None else usable(model)
    solvable = all(camera.camera_from_rig is not None for camera in request.cameras if camera.coupled)
    if found < request.mapping.incremental_below * request.mapping.frames and solvable:  # it cannot find places itself
        report(85, f"global mapping placed {found}/{request.mapping.frames} images; incremental mapping")
        from_scratch = incremental_options(pycolmap, request.mapping, frames)
        from_scratch.ba_refine_sensor_from_rig = not held
        other = max(map_incrementally(pycolmap, folder, from_scratch), key=usable, default=None)
        if other is not None and usable(other) > found:
            model, method, found = other, "incremental", usable(other)
    if found < 2:
        return None, "none"
    if held:
        adjust_held(pycolmap, model, options.mapper.bundle_adjustment)
    report(_STEPS, f"{found}/{request.mapping.frames} images placed by {method} mapping")
    return model, method


def camera_arrays(model: Any, cameras: list[Any], request: RigRequest) -> dict[str, np.ndarray]:
    """Return the cameras' parameters as solved, and the places `[C, 4, 4]` of those that the model holds in its rig."""
    arrays = {f"params_{number}": np.array(model.cameras[c.camera_id].params) for number, c in enumerate(cameras)}
    places = np.repeat(np.eye(4)[None], len(cameras), axis=0)
    for number, (camera, given) in enumerate(zip(cameras, request.cameras, strict=True)):
        if number and given.coupled:
            (rig,) = (rig for rig in model.rigs.values() if rig.has_sensor(camera.sensor_id))
            known = rig.has_sensor_from_rig(camera.sensor_id)
            places[number, :3] = rig.sensor_from_rig(camera.sensor_id).matrix() if known else np.nan
    return arrays | {"camera_from_rig": places}


def run(folder: Path) -> None:
    """Reconstruct what `folder` asks for, and write `result.npz` there (empty where nothing could be placed)."""
    import pycolmap

    def report(done: float, note: str) -> None:
        print(json.dumps([round(done), _STEPS, note]), flush=True)

    request = read_request(folder)
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    pycolmap.set_random_seed(request.mapping.seed)
    cameras = prepare_rig_database(pycolmap, folder / "colmap.db", request)
    extract(pycolmap, folder, request.mapping, report)
    match_pairs(pycolmap, folder, request.mapping, request.pairs, lambda done, note: report(35 + 30 * done, note))
    held = places_are_held(pycolmap, folder, request)
    model, method = reconstruct_rig(pycolmap, folder, request, held, report)
    arrays = {} if model is None else arrays_of(model, request.mapping) | camera_arrays(model, cameras, request)
    arrays |= {"method": np.array(method), "held": np.array(held)}
    np.savez(folder / "result.npz", **arrays)  # type: ignore[arg-type]


def write_request(folder: Path, request: RigRequest) -> None:
    """Write `request.json`."""
    (folder / "request.json").write_text(json.dumps(dataclasses.asdict(request)))


def read_request(folder: Path) -> RigRequest:
    """Read `request.json`."""
    values = json.loads((folder / "request.json").read_text())
    values["mapping"] = MapRequest(**values["mapping"])
    values["cameras"] = [RigCamera(**camera) for camera in values["cameras"]]
    values["pairs"] = [(first, second) for first, second in values["pairs"]]
    return RigRequest(**values)


if __name__ == "__main__":
    threading.Thread(target=leave_with_parent, daemon=True).start()
    run(Path(sys.argv[1]))
