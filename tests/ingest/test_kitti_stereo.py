"""A KITTI raw drive made here: its baseline, times and fixes are those that were written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.rigs import RigClip
from stages.contract import no_progress
from stages.ingest.kitti_stereo import ingest_kitti_stereo
from stages.ingest.rig_sets import RigConfig
from stages.ingest.source import describe_source

FOCAL, BASELINE_M = 720.0, 0.54
PAIR = ("image_02", "image_03")


def make_drive(day: Path, folders: tuple[str, ...] = PAIR) -> Path:
    drive = day / "2011_09_26_drive_0001_sync"
    for number, folder in enumerate(folders):
        (drive / folder / "data").mkdir(parents=True)
        for index in range(4):
            picture = np.full((40, 120, 3), 10 * index + number, np.uint8)
            Image.fromarray(picture).save(drive / folder / "data" / f"{index:010d}.png")
        times = [
            f"2011-09-26 13:02:25.{9 + index:02d}{number}000123" for index in range(4)
        ]  # the right one is stamped 1 ms later
        (drive / folder / "timestamps.txt").write_text("\n".join(times))
    (drive / "oxts" / "data").mkdir(parents=True)
    for index in range(4):
        values = [49.0 + 1e-6 * index, 8.0, 116.0, 0, 0, 0, 3.0, -4.0, 9.0, *[0] * 21]
        (drive / "oxts" / "data" / f"{index:010d}.txt").write_text(" ".join(map(str, values)))
    (drive / "oxts" / "timestamps.txt").write_text("\n".join(f"2011-09-26 13:02:25.{9 + index:02d}5000123" for index in range(4)))
    rows = {"P_rect_00": 0.0, "P_rect_01": -BASELINE_M, "P_rect_02": 0.06, "P_rect_03": 0.06 - BASELINE_M}
    lines = ["calib_time: 09-Jan-2012 13:57:47"]
    lines += [f"{key}: {FOCAL} 0 60.5 {FOCAL * shift} 0 {FOCAL} 20 0.0 0 0 1 0.0" for key, shift in rows.items()]
    (day / "calib_cam_to_cam.txt").write_text("\n".join(lines))
    return drive


def ingest(drive: Path, **config: Any) -> tuple[Clip, RigClip]:
    clip, truth, rig = ingest_kitti_stereo(describe_source(drive), RigConfig(**config), seed=0, progress=no_progress)
    assert not truth.available
    return clip, rig


def test_the_right_camera_sits_one_baseline_to_the_right(tmp_path: Path) -> None:
    _, rig = ingest(make_drive(tmp_path))
    assert rig.cameras == ["image_02", "image_03"]
    point = np.array([1.0, 2.0, 10.0, 1.0])
    np.testing.assert_allclose(rig.camera_from_rig[1] @ point, [1.0 - BASELINE_M, 2.0, 10.0, 1.0])
    np.testing.assert_allclose(rig.intrinsics[0], [[FOCAL, 0, 61.0], [0, FOCAL, 20.5], [0, 0, 1]])
    assert rig.placed.all()


def test_the_pair_is_triggered_as_one(tmp_path: Path) -> None:
    _, rig = ingest(make_drive(tmp_path))
    np.testing.assert_array_equal(rig.times_s["image_02"], rig.times_s["image_03"])
    np.testing.assert_allclose(rig.times_s["image_02"], [0, 0.01, 0.02, 0.03])
    assert [int(frame[0, 0, 0]) for frame in rig.frames["image_03"]] == [1, 11, 21, 31]


def test_the_left_clip_has_epoch_and_fixes(tmp_path: Path) -> None:
    clip, _ = ingest(make_drive(tmp_path), start_s=0.005)
    assert clip.epoch_ns == 1_317_042_145_100_000_123  # 2011-09-26 13:02:25 UTC is 1317042145
    assert clip.gps is not None
    np.testing.assert_allclose(clip.gps.column("time_s").to_numpy(), [-0.005, 0.005, 0.015, 0.025], atol=1e-9)
    np.testing.assert_allclose(clip.gps.column("speed_mps").to_numpy(), 5.0)


def test_the_grey_pair_serves_where_there_is_no_colour(tmp_path: Path) -> None:
    _, rig = ingest(make_drive(tmp_path, ("image_00", "image_01")))
    assert rig.cameras == ["image_00", "image_01"]
    assert np.linalg.norm(rig.camera_from_rig[1, :3, 3]) == pytest.approx(BASELINE_M)


def test_a_lost_frame_of_one_camera_leaves_a_set_without_it(tmp_path: Path) -> None:
    drive = make_drive(tmp_path)
    (drive / "image_03" / "data" / f"{1:010d}.png").unlink()
    _, rig = ingest(drive)
    np.testing.assert_array_equal(rig.sets, [[0, 0], [1, -1], [2, 1], [3, 2]])


def test_what_a_drive_lacks_is_named(tmp_path: Path) -> None:
    drive = make_drive(tmp_path)
    (tmp_path / "calib_cam_to_cam.txt").unlink()
    with pytest.raises(WorldlineError, match=r"has no calib_cam_to_cam\.txt, which a KITTI raw drive needs"):
        ingest(drive)
    (tmp_path / "calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3")
    with pytest.raises(WorldlineError, match=r"P_rect_02 in calib_cam_to_cam\.txt is not 12 numbers"):
        ingest(drive)
    alone = make_drive(tmp_path / "mono", ("image_02",))
    with pytest.raises(WorldlineError, match="has no stereo pair image_02 and image_03"):
        ingest(alone)
    make_drive(tmp_path / "late")
    (tmp_path / "late" / drive.name / "image_02" / "timestamps.txt").write_text("2011-09-26 13:02\n")
    with pytest.raises(WorldlineError, match=r"image_02/timestamps.txt, line 1: '2011-09-26 13:02' is not a date and time"):
        ingest(tmp_path / "late" / drive.name)
