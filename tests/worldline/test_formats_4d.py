"""Files with time: sequences of PLYs and .4dgs, and the motion model that they are read as."""

import dataclasses

import fourdgs
import gsply
import numpy as np
import pytest
from fourdgs.validate import validate

from benchmarks.reconstruct_formats import drop_db, random_scene
from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline import formats, motion
from worldline.cameras import rotation_from_quaternion
from worldline.motion import native_4d, state_at


def covariances(quats: np.ndarray, scales: np.ndarray) -> np.ndarray:
    factor = rotation_from_quaternion(quats) * scales[:, None, :].astype(np.float64)
    return factor @ factor.swapaxes(1, 2)


def visible(scene: Scene4D, time_s: float) -> dict[str, np.ndarray]:
    """The Gaussians that are seen at a time, by where they are."""
    state = state_at(scene, time_s)
    means, opacities = state.means.numpy(), state.opacities.numpy()
    covars = state.covars.numpy() if state.covars is not None else covariances(state.quats.numpy(), state.scales.numpy())
    kept = np.flatnonzero(opacities >= 1 / 255)
    return {"means": means[kept], "opacities": opacities[kept], "covars": covars[kept], "colors": state.colors.numpy()[kept]}


# -- the motion model --------------------------------------------------------------------------------------------------


def births(**given: np.ndarray) -> Scene4D:
    """Three Gaussians of a clip from 1 s to 3 s."""
    scene = random_scene("static", 3, degree=0)
    arrays = {
        "velocities": np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]], np.float32),
        "peaks": np.array([0.0, 0.5, 1.0], np.float32),
        "lifespans": np.full(3, np.inf, np.float32),
        "starts": np.full(3, -np.inf),
        "ends": np.full(3, np.inf),
    }
    return dataclasses.replace(scene, motion_model="gaussian_birth", motion=arrays | given)


def test_gaussians_drift_in_straight_lines_from_where_they_peak():
    scene = births()
    means = state_at(scene, 2.5).means.numpy() - scene.means
    np.testing.assert_allclose(means, [[0.75, 0, 0], [0, 0.5, 0], [0, 0, -0.75]], atol=1e-6)
    np.testing.assert_allclose(motion.velocity_at(scene, 2.5), scene.motion["velocities"] / 2.0)


def test_gaussians_fade_as_a_bell_curve_in_time():
    scene = births(lifespans=np.array([0.4, 0.5, np.inf], np.float32))
    presence = state_at(scene, 2.5).opacities.numpy() / scene.opacities
    np.testing.assert_allclose(presence, np.exp([-0.5 * (0.75 / 0.4) ** 2, -0.125, 0.0]), rtol=1e-5)
    assert state_at(scene, 3.0).opacities[0] == 0.0  # exp(-3.1) is under the 5 % at which files cut


def test_gaussians_are_there_from_their_start_until_before_their_end():
    scene = births(starts=np.array([-np.inf, 0.5, 0.75]), ends=np.array([0.5, 0.75, np.inf]))
    for time_s, there in ((1.0, [1, 0, 0]), (2.0, [0, 1, 0]), (2.25, [0, 1, 0]), (2.5, [0, 0, 1]), (9.0, [0, 0, 1])):
        assert (state_at(scene, time_s).opacities.numpy() > 0).tolist() == [bool(one) for one in there]
    assert (motion.velocity_at(scene, 2.0).numpy() != 0).any(axis=1).tolist() == [False, True, False]


# -- sequences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gaussian_flow", "native_4d", "rigid_agents"])
def test_a_sequence_shows_every_frame_at_its_time(model, tmp_path):
    scene = random_scene(model, 200)
    formats.write_ply_sequence(scene, tmp_path / "frames", frames=5)
    again = formats.read_scene(tmp_path / "frames")
    assert (again.start_s, again.end_s) == (1.0, 3.0)
    for time_s in np.linspace(1.0, 3.0, 5):
        expected, found = visible(scene, time_s), visible(again, time_s)
        assert len(expected["means"]) == len(found["means"])
        for name, atol in (("means", 1e-6), ("opacities", 1e-6), ("covars", 1e-7), ("colors", 1e-6)):
            np.testing.assert_allclose(found[name], expected[name], atol=atol, err_msg=name)
    assert drop_db(scene, again, [1.0, 2.0, 3.0], size=64) < 1e-3


def test_between_frames_the_nearest_is_shown(tmp_path):
    scene = random_scene("periodic_vibration", 50)
    formats.write_ply_sequence(scene, tmp_path / "frames", frames=3)
    again = formats.read_ply_sequence(tmp_path / "frames")
    for time_s, frame_s in ((1.49, 1.0), (1.51, 2.0), (2.4, 2.0), (2.6, 3.0)):
        np.testing.assert_allclose(visible(again, time_s)["means"], visible(scene, frame_s)["means"], atol=1e-6)


def test_files_of_a_sequence_are_numbered_for_players_and_hold_what_is_seen(tmp_path):
    scene = random_scene("rigid_agents", 100, degree=0)
    formats.write_ply_sequence(scene, tmp_path / "frames", frames=3, prefix="street_")
    paths = sorted((tmp_path / "frames").iterdir())
    assert [path.name for path in paths] == ["street_0000.ply", "street_0001.ply", "street_0002.ply"]
    counts = [len(gsply.plyread(path)) for path in paths]
    agent_2 = (scene.motion["agents"] == 2).sum()  # is not there at first
    assert counts == [100 - agent_2, 100, 100]


def test_frames_of_others_are_ordered_by_their_numbers_and_timed_by_fps(tmp_path):
    for number in (9, 10, 11):
        scene = random_scene("static", 4, degree=0, seed=number)
        data = gsply.GSData.from_arrays(
            scene.means, np.log(scene.scales), scene.quats, scene.opacities, scene.colors, format="ply"
        )
        gsply.plywrite(tmp_path / f"out{number}.ply", data)
    again = formats.read_ply_sequence(tmp_path, fps=10.0)
    assert (again.start_s, again.end_s) == pytest.approx((0.0, 0.2))
    for time_s, number in ((0.0, 9), (0.1, 10), (0.2, 11)):
        np.testing.assert_allclose(visible(again, time_s)["means"], random_scene("static", 4, degree=0, seed=number).means)


def test_a_moment_of_nothing_is_a_frame_that_viewers_open(tmp_path):
    scene = births(starts=np.array([0.9] * 3))
    formats.write_ply_sequence(scene, tmp_path / "frames", frames=2)
    first = gsply.plyread(tmp_path / "frames" / "frame_0000.ply")
    assert len(first) == 1
    assert gsply.sigmoid(first.opacities)[0] < 1e-6


def test_a_sequence_appears_whole_or_not_at_all(tmp_path):
    never = births(starts=np.array([5.0] * 3))
    with pytest.raises(WorldlineError, match="shows no Gaussian at any of 4 times"):
        formats.write_ply_sequence(never, tmp_path / "frames", frames=4)
    assert not list(tmp_path.iterdir())
    formats.write_ply_sequence(births(), tmp_path / "frames", frames=2)
    with pytest.raises(WorldlineError, match="exists already"):
        formats.write_ply_sequence(births(), tmp_path / "frames", frames=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorldlineError, match=r"holds no \.ply files"):
        formats.read_scene(tmp_path / "empty")


# -- .4dgs -------------------------------------------------------------------------------------------------------------


def test_native_4d_gaussians_go_into_4dgs_exactly_but_for_its_declared_bounds(tmp_path):
    scene, path = random_scene("native_4d", 300), tmp_path / "scene.4dgs"
    formats.write_fourdgs(scene, path)
    assert validate(path.read_bytes()).ok
    header = fourdgs.read(str(path))
    bounds = {name: float(value) for name, value in header.quantization.bounds.items()}
    again = formats.read_scene(path)
    assert again.motion_model == "gaussian_birth"
    assert (again.start_s, again.end_s) == (1.0, 3.0)
    sizes = np.sqrt(np.linalg.eigvalsh(native_4d.state_at(*motion._tensors(scene), 0.5).covars.numpy())[:, -1]).max()
    for time_s in (1.0, 1.7, 3.0):
        expected, found = visible(scene, time_s), visible(again, time_s)
        distances = np.linalg.norm(found["means"][:, None] - expected["means"][None], axis=-1)
        # A centre errs along each axis by its place and, over a life of up to 3 s, by its velocity, an opacity by its time too.
        # What is at the cut of 5 % or at 1/255 may be there in one and not in the other.
        rows, close = distances.argmin(axis=1), distances.min(axis=1) < 6 * bounds["pos"]
        assert close.mean() > 0.97
        assert abs(len(found["means"]) - len(expected["means"])) < 0.03 * 300
        error = {name: np.abs(found[name] - expected[name][rows])[close].max() for name in ("covars", "opacities", "colors")}
        assert error["covars"] < 4 * (bounds["scale_rel"] + bounds["rot"]) * sizes**2
        assert error["opacities"] < bounds["alpha"] + 0.03
        assert error["colors"] < bounds["rgb"] + 1e-6


def test_4dgs_bakes_the_colour_of_the_peak(tmp_path):
    scene = random_scene("native_4d", 20, degree=0)
    orders = np.full((20, 2, 3), 0.02, np.float32)
    scene = dataclasses.replace(scene, motion=scene.motion | {"time_colors": orders, "times": np.full(20, 0.5, np.float32)})
    formats.write_fourdgs(scene, tmp_path / "scene.4dgs")
    again = formats.read_fourdgs(tmp_path / "scene.4dgs")
    rows = np.linalg.norm(again.means[:, None] - scene.means[None], axis=-1).argmin(axis=1)
    np.testing.assert_allclose(again.colors, (scene.colors + 0.04)[rows], atol=0.51 / 255)


@pytest.mark.parametrize("model", ["gaussian_flow", "periodic_vibration", "rigid_agents"])
def test_other_models_go_as_key_frames_with_identities(model, tmp_path):
    scene, path = random_scene(model, 100, degree=0), tmp_path / "scene.4dgs"
    formats.write_fourdgs(scene, path, key_frames=4)
    assert validate(path.read_bytes()).ok
    again = formats.read_scene(path)
    assert (again.start_s, again.end_s) == (1.0, 3.0)
    for time_s in (1.0, 1.5, 2.0, 2.5):
        assert drop_db(scene, again, [time_s], size=64) < 2.0
        expected, found = visible(scene, time_s), visible(again, time_s)
        assert len(found["means"]) == pytest.approx(len(expected["means"]), abs=2)  # an opacity near 1/255 may round to it


def test_between_key_frames_gaussians_move_in_straight_lines(tmp_path):
    scene = random_scene("gaussian_flow", 100, degree=0)
    formats.write_fourdgs(scene, tmp_path / "scene.4dgs", key_frames=4)
    again = formats.read_fourdgs(tmp_path / "scene.4dgs")
    middle = 0.5 * (state_at(scene, 1.5).means + state_at(scene, 2.0).means).numpy()
    assert np.abs(visible(again, 1.75)["means"] - middle).max() < 0.1 * np.median(scene.scales)


def test_a_static_scene_and_one_that_was_read_go_into_4dgs_and_keep_their_objects(tmp_path):
    scene = random_scene("static", 100)
    formats.write_fourdgs(scene, tmp_path / "one.4dgs")
    once = formats.read_fourdgs(tmp_path / "one.4dgs")
    rows = np.linalg.norm(once.means[:, None] - scene.means[None], axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(once.instances, scene.instances[rows])
    assert np.abs(once.harmonics - scene.harmonics[rows]).max() <= 4.0 / 255 + 1e-6
    formats.write_fourdgs(once, tmp_path / "two.4dgs")
    assert validate((tmp_path / "two.4dgs").read_bytes()).ok
    assert drop_db(scene, formats.read_fourdgs(tmp_path / "two.4dgs"), [2.0], size=64) < 3.0


def test_a_4dgs_of_y_up_is_turned_into_the_house_s_frame(tmp_path):
    scene = random_scene("static", 1, degree=0)
    formats.write_fourdgs(scene, tmp_path / "one.4dgs")
    gaussians = fourdgs.read(str(tmp_path / "one.4dgs")).gaussians
    gaussians.positions[:] = [1.0, 3.0, -2.0]
    options = fourdgs.WriteOptions(metadata={"coordinate_system": "y-up-right-handed"})
    fourdgs.write(str(tmp_path / "y.4dgs"), gaussians, 1.0, options=options)
    np.testing.assert_allclose(formats.read_scene(tmp_path / "y.4dgs").means[0], [1.0, 2.0, 3.0], atol=0.01)


def test_a_profile_that_there_is_not_is_told(tmp_path):
    with pytest.raises(WorldlineError, match=r"'finest' is no profile of \.4dgs files: there is fine, default, coarse"):
        formats.write_fourdgs(random_scene("static", 5), tmp_path / "scene.4dgs", profile="finest")
