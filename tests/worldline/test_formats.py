"""File formats: what goes out comes back, others open it, and a damaged file is told as one."""

import contextlib
import errno
import shutil
import struct
from pathlib import Path

import gsply
import numpy as np
import pytest
from gsplat.cuda._torch_impl import _eval_sh_bases_fast
from torch import from_numpy

from benchmarks.reconstruct_formats import AT_S, MODELS, check_gltf, drop_db, install_validator, random_scene
from schemas.errors import WorldlineError
from worldline import formats
from worldline.cameras import rotation_from_quaternion, rotation_from_vector
from worldline.formats.frames import turned, turned_harmonics
from worldline.formats.moments import Moment, moment_at, quats_and_scales
from worldline.motion import state_at

FILES = Path(__file__).with_name(
    "splat_files"
)  # an 8-Gaussian PLY of ours, and what PlayCanvas' splat-transform 2.7.1 made of it
WRITERS = {
    "scene.ply": formats.write_ply,
    "scene.compressed.ply": formats.write_compressed_ply,
    "scene.spz": formats.write_spz,
    "scene.splat": formats.write_splat,
    "scene.glb": formats.write_gltf,
    "scene.4dgs": formats.write_fourdgs,
}
LOSSLESS = ("scene.ply", "scene.glb")


def covariances(quats: np.ndarray, scales: np.ndarray) -> np.ndarray:
    factor = rotation_from_quaternion(quats) * scales[:, None, :].astype(np.float64)
    return factor @ factor.swapaxes(1, 2)


def nearest(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - to[None], axis=-1).argmin(axis=1)


# -- journeys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_gives_back_every_value(name, degree, tmp_path):
    scene = random_scene("static", 200, degree)
    WRITERS[name](scene, tmp_path / name)
    again = formats.read_scene(tmp_path / name)
    for field in ("means", "scales", "opacities", "colors"):
        np.testing.assert_allclose(getattr(again, field), getattr(scene, field), rtol=3e-6, atol=2e-7)
    np.testing.assert_allclose(np.abs((again.quats * scene.quats).sum(axis=1)), 1.0, atol=1e-6)
    if degree:
        np.testing.assert_allclose(again.harmonics, scene.harmonics, atol=1e-6)
    else:
        assert again.harmonics is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", LOSSLESS)
def test_a_render_of_the_moment_read_back_is_the_same(name, model, tmp_path):
    scene = random_scene(model, 300)
    WRITERS[name](scene, tmp_path / name, at_s=AT_S)
    again = formats.read_scene(tmp_path / name)
    assert again.start_s == AT_S
    assert drop_db(scene, again, [AT_S], size=64) < 1e-3


def test_a_small_file_costs_little_in_pictures(tmp_path):
    scene = random_scene("static", 300)
    for name, most_db in (("scene.compressed.ply", 1.5), ("scene.spz", 1.5), ("scene.4dgs", 1.5)):
        WRITERS[name](scene, tmp_path / name)
        drop = drop_db(scene, formats.read_scene(tmp_path / name), [AT_S], size=64)
        assert 1e-3 < drop < most_db, name  # it is quantised, so some drop must be seen


def test_a_splat_keeps_eight_bits_of_all_but_place_and_size(tmp_path):
    scene = random_scene("static", 100, degree=0)
    formats.write_splat(scene, tmp_path / "scene.splat")
    again = formats.read_scene(tmp_path / "scene.splat")
    rows = nearest(again.means, scene.means)
    np.testing.assert_allclose(again.means, scene.means[rows], atol=1e-6)
    np.testing.assert_allclose(again.scales, scene.scales[rows], rtol=1e-6)
    assert np.abs(again.colors - scene.colors[rows]).max() <= 0.5 / 255 + 1e-6
    assert np.abs(again.opacities - scene.opacities[rows]).max() <= 0.5 / 255 + 1e-6
    assert (np.abs((again.quats * scene.quats[rows]).sum(axis=1)) > 0.9999).all()


def test_gaussians_that_nothing_draws_stay_out(tmp_path):
    scene = random_scene("periodic_vibration", 400)
    seen = (state_at(scene, AT_S).opacities >= 1 / 255).sum()
    formats.write_ply(scene, tmp_path / "scene.ply", at_s=AT_S)
    assert len(formats.read_ply(tmp_path / "scene.ply").means) == seen


def test_covariances_become_rotations_and_sizes_of_the_same_gaussians():
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((50, 3, 3))
    covars = factor @ factor.swapaxes(1, 2)
    quats, scales = quats_and_scales(covars)
    np.testing.assert_allclose(covariances(quats, scales), covars, rtol=1e-9, atol=1e-9)
    assert (np.diff(scales, axis=1) <= 0).all()
    assert np.allclose(np.linalg.det(rotation_from_quaternion(quats)), 1.0)


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("up", "file_axes"), [("z", [1.0, 2.0, 3.0]), ("y", [1.0, 3.0, -2.0]), ("-y", [1.0, -3.0, 2.0])])
def test_the_axis_that_is_asked_for_points_up(up, file_axes, tmp_path):
    one = random_scene("static", 1)
    one.means[:] = [1.0, 2.0, 3.0]
    formats.write_ply(one, tmp_path / "one.ply", up=up)
    np.testing.assert_allclose(gsply.plyread(tmp_path / "one.ply").means[0], file_axes, atol=1e-7)
    np.testing.assert_allclose(formats.read_ply(tmp_path / "one.ply").means[0], [1.0, 2.0, 3.0], atol=1e-7)


def test_a_foreign_ply_is_read_with_its_axes_as_they_are_unless_told(tmp_path):
    one = random_scene("static", 1)
    data = gsply.GSData.from_arrays(
        *(np.zeros((1, 3), np.float32),) * 2, one.quats, np.zeros(1, np.float32), one.colors, format="ply"
    )
    data.means[:] = [1.0, 2.0, 3.0]
    gsply.plywrite(tmp_path / "foreign.ply", data)
    np.testing.assert_allclose(formats.read_scene(tmp_path / "foreign.ply").means[0], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(formats.read_ply(tmp_path / "foreign.ply", up="-y").means[0], [1.0, 3.0, -2.0])


def test_turned_harmonics_show_the_old_colour_towards_the_turned_direction():
    rng = np.random.default_rng(0)
    harmonics, directions = rng.standard_normal((4, 15, 3)), rng.standard_normal((20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rotation = rotation_from_vector(np.array([0.4, -1.1, 0.7]))

    def seen(coefficients: np.ndarray, towards: np.ndarray) -> np.ndarray:
        return np.einsum("dk,nkc->dnc", _eval_sh_bases_fast(16, from_numpy(towards)).numpy()[:, 1:], coefficients)

    after = seen(turned_harmonics(harmonics, rotation), directions @ rotation.T)
    np.testing.assert_allclose(after, seen(harmonics, directions), atol=1e-9)


def test_a_turn_turns_shapes_with_their_places():
    moment = moment_at(random_scene("static", 20), 1.0)
    rotation = rotation_from_vector(np.array([0.4, -1.1, 0.7]))
    after = turned(moment, rotation)
    before = covariances(moment.quats, moment.scales)
    np.testing.assert_allclose(after.means, moment.means @ rotation.T)
    np.testing.assert_allclose(covariances(after.quats, after.scales), rotation @ before @ rotation.T, atol=1e-12)


# -- other people's programs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gsply_reads_our_ply_as_it_was_meant(degree, tmp_path):
    scene = random_scene("static", 50, degree)
    formats.write_ply(scene, tmp_path / "scene.ply", up="z")
    data = gsply.plyread(tmp_path / "scene.ply")
    np.testing.assert_allclose(gsply.sigmoid(data.opacities), scene.opacities, atol=1e-6)
    np.testing.assert_allclose(np.exp(data.scales), scene.scales, rtol=1e-5)
    np.testing.assert_allclose(gsply.sh2rgb(data.sh0), scene.colors, atol=1e-6)
    np.testing.assert_allclose(data.quats, scene.quats, atol=1e-6)
    if degree:
        np.testing.assert_allclose(data.shN, scene.harmonics, atol=1e-6)


@pytest.mark.parametrize("name", ["theirs.spz", "theirs-4.spz", "theirs.compressed.ply", "theirs.glb"])
def test_files_of_playcanvas_splat_transform_hold_what_it_was_given(name):
    source = formats.read_scene(FILES / "source.ply")
    theirs = formats.read_compressed_ply(FILES / name, up="-y") if name.endswith("ply") else formats.read_scene(FILES / name)
    if name.endswith("glb"):  # it turns y-down PLYs by half a turn about z, we about x: half a turn about the vertical apart
        theirs = _half_turned(theirs)
    rows = nearest(theirs.means, source.means)
    assert sorted(rows) == list(range(8))
    np.testing.assert_allclose(theirs.means, source.means[rows], atol=2e-3)
    largest = np.abs(covariances(source.quats, source.scales)).max()
    np.testing.assert_allclose(
        covariances(theirs.quats, theirs.scales), covariances(source.quats, source.scales)[rows], atol=0.06 * largest
    )
    np.testing.assert_allclose(theirs.colors, source.colors[rows], atol=0.005)
    np.testing.assert_allclose(theirs.opacities, source.opacities[rows], atol=0.005)
    np.testing.assert_allclose(theirs.harmonics, source.harmonics[rows], atol=0.09 if "spz" in name else 0.02)  # SPZ: 4 bits


def _half_turned(scene):
    arrays = (scene.means, scene.quats, scene.scales, scene.opacities, scene.colors, scene.harmonics, np.arange(len(scene.means)))
    return turned(Moment(*arrays), np.diag([-1.0, -1.0, 1.0]))


def test_khronos_validator_finds_nothing_but_names_it_does_not_know(tmp_path):
    folder = install_validator(tmp_path / "validator", offline=True)
    if folder is None:
        pytest.skip("node or the npm package gltf-validator is not at hand")
    formats.write_gltf(random_scene("static", 10, degree=1), tmp_path / "scene.glb")
    assert check_gltf(tmp_path / "scene.glb", folder) == 7


# -- what a PLY may look like ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ascii", "binary_big_endian"])
def test_a_ply_is_read_in_any_encoding_order_and_width_of_its_properties(form, tmp_path):
    scene = random_scene("static", 5, degree=0)
    formats.write_ply(scene, tmp_path / "ours.ply", up="z")
    data = gsply.plyread(tmp_path / "ours.ply")
    columns = {"rot": data.quats, "scale": data.scales, "opacity": data.opacities[:, None], "f_dc": data.sh0}
    names = [f"{stem}_{k}" if stem != "opacity" else stem for stem, array in columns.items() for k in range(array.shape[1])]
    table = np.concatenate([*columns.values(), data.means, np.full((5, 1), 7.0)], axis=1)
    header = [
        "ply",
        f"format {form} 1.0",
        "element vertex 5",
        *(f"property double {name}" for name in [*names, "x", "y", "z", "confidence"]),
    ]
    body = (
        b"\n".join(" ".join(map(repr, row)).encode() for row in table.tolist())
        if form == "ascii"
        else table.astype(">f8").tobytes()
    )
    (tmp_path / "other.ply").write_bytes("\n".join([*header, "end_header\n"]).encode() + body)
    again = formats.read_scene(tmp_path / "other.ply")
    np.testing.assert_allclose(again.means, scene.means, atol=1e-6)
    np.testing.assert_allclose(again.opacities, scene.opacities, atol=1e-6)


def test_opacities_of_nought_and_one_and_sizes_of_nought_survive(tmp_path):
    scene = random_scene("static", 3)
    scene.opacities[:] = [1.0, 0.5, 0.0]
    scene.scales[0, 2] = 0.0  # a surfel
    formats.write_ply(scene, tmp_path / "scene.ply")
    again = formats.read_ply(tmp_path / "scene.ply")
    np.testing.assert_allclose(again.opacities, [1.0, 0.5], atol=1e-6)
    assert 0 < again.scales[0, 2] < 1e-8


# -- bad files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_told_or_read_but_never_breaks_the_reader(name, tmp_path):
    scene, path = random_scene("static", 40, degree=1), tmp_path / name
    WRITERS[name](scene, path)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:length])
        if length % 32 == 0 and name == "scene.splat" and length:
            continue  # whole Gaussians: nothing tells that some are missing
        with pytest.raises(WorldlineError, match=name):
            formats.read_scene(path)


@pytest.mark.parametrize("name", WRITERS)
def test_flipped_bytes_are_told_in_a_sentence_or_read(name, tmp_path):
    path, rng = tmp_path / name, np.random.default_rng(0)
    WRITERS[name](random_scene("static", 40, degree=1), path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(WorldlineError):
            scene = formats.read_scene(path)
            assert all(np.isfinite(array).all() for array in (scene.means, scene.quats, scene.scales, scene.opacities))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "no property y"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n",
            "no Gaussians",
        ),
        (b"glTF" + struct.pack("<II", 1, 20) + bytes(20), "version 1"),
        (b'{"asset": {"version": "2.0"}}', "no Gaussians"),
        (b'{"asset": {"version": "2.0"}, "extensionsRequired": ["KHR_draco_mesh_compression"]}', "KHR_draco_mesh_compression"),
        (b"\x894DGS9\r\n" + bytes(100), "version"),
        (b"PK\x03\x04" + bytes(50), "SOG"),
        (b"just some text", "no format that is known"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told_in_one_sentence(data, told, tmp_path):
    (tmp_path / "scene.ply").write_bytes(data)
    with pytest.raises(WorldlineError, match=told) as caught:
        formats.read_scene(tmp_path / "scene.ply")
    assert "scene.ply" in str(caught.value)


def test_values_that_are_no_numbers_are_refused_both_ways(tmp_path):
    scene = random_scene("static", 5)
    formats.write_ply(scene, tmp_path / "scene.ply")
    data = bytearray((tmp_path / "scene.ply").read_bytes())
    data[-4:] = struct.pack("<f", np.nan)
    (tmp_path / "scene.ply").write_bytes(bytes(data))
    with pytest.raises(WorldlineError, match=r"scene.ply is damaged: 1 of its 5 Gaussians have quats"):
        formats.read_scene(tmp_path / "scene.ply")
    scene.means[2, 1] = np.inf
    for name, write in WRITERS.items():
        with pytest.raises(WorldlineError, match="1 of 5 Gaussians of the scene have means"):
            write(scene, tmp_path / f"new-{name}")
    assert not list(tmp_path.glob("new-*"))


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_scene_is_not_written(name, tmp_path):
    with pytest.raises(WorldlineError, match="was not written"):
        WRITERS[name](random_scene("static", 0), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path, monkeypatch):
    for name in WRITERS:
        (tmp_path / name).write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for name, write in WRITERS.items():
        with pytest.raises(WorldlineError, match=f"{name} could not be written .No space left"):
            write(random_scene("static", 5), tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(WRITERS, b"old")


@pytest.mark.parametrize("place", ["no-such-folder", "a-file"])
def test_a_place_that_cannot_be_written_to_is_told(place, tmp_path):
    (tmp_path / "a-file").touch()
    for name, write in WRITERS.items():
        with pytest.raises(WorldlineError, match=f"{name} could not be written"):
            write(random_scene("static", 5), tmp_path / place / name)
    with pytest.raises(WorldlineError, match="frames could not be written"):
        formats.write_ply_sequence(random_scene("static", 5), tmp_path / place / "frames", frames=2)


def test_a_file_is_known_by_what_it_holds_not_by_its_name(tmp_path):
    scene = random_scene("static", 20)
    for name, write in WRITERS.items():
        if name != "scene.splat":
            write(scene, tmp_path / name)
            shutil.move(tmp_path / name, tmp_path / "unnamed.bin")
            assert len(formats.read_scene(tmp_path / "unnamed.bin").means) == 20


def test_spz_says_how_to_reach_far_places(tmp_path):
    scene = random_scene("static", 5)
    scene.means[0] = [0.0, 5000.0, 0.0]
    with pytest.raises(WorldlineError, match="ask for fractional_bits=10"):
        formats.write_spz(scene, tmp_path / "far.spz")
    formats.write_spz(scene, tmp_path / "far.spz", fractional_bits=10)
    assert np.abs(formats.read_spz(tmp_path / "far.spz").means - scene.means).max() < 1e-3
