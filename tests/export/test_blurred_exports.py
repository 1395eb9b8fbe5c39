"""Faces and plates do not go out when they are to be blurred: every picture of every format, and what was done is told."""

import io
import json
import sys
import tarfile
from pathlib import Path

import av
import cv2
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from benchmarks.labels_street import TIMES_S, made_clip, publish_street
from catalogs.catalog import Catalog
from flows.command_line import main
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.export.plates import PlateConfig, open_plate_detector

pytest.importorskip("ai_edge_litert", reason="pip install 'worldline[privacy]'")
LABELS = ("llava", "sharegpt", "videofolder", "webdataset", "kitti-tracking", "argoverse2", "nuscenes", "lerobot", "rerun")
CAMERAS = ("colmap", "colmap-text", "transforms")
PORTRAIT = cv2.imread(str(Path(__file__).parents[1] / "worldline" / "faces" / "astronaut.jpg"))[..., ::-1]
EYES_AND_MOUTH = slice(30, 60), slice(70, 95)  # of the portrait at 90 x 90 pixels, 40 pixels from the left


def street_with_a_face() -> Clip:
    frames = made_clip("free").frames.array().copy()
    frames[:, :, 40:130] = cv2.resize(PORTRAIT, (90, 90), interpolation=cv2.INTER_AREA)
    return Clip(frames=Video.from_array(frames), times_s=TIMES_S, name="a face")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return publish_street(tmp_path_factory.mktemp("faces") / "home", {"clip": street_with_a_face()})


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny detector with random weights: its boxes mean nothing, their path is that of real ones."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    torch.manual_seed(0)
    names = {0: "car", 1: "License-Plate", 2: "person"}
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[64, 64], patch_size=16,
        num_detection_tokens=12, id2label=names, label2id={name: index for index, name in names.items()},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "plates"
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model that means nothing.\n")
    return folder


def write(catalog: Catalog, form: str, out: Path, *options: str) -> int:
    """Export the clip with the face; the other one may not be sold."""
    return main(["export", "street", form, str(out), *options, "--licence", "commercial", "--home", str(catalog.home)])


def pictures(folder: Path) -> list[np.ndarray]:
    """Return the pictures of an export, and the first 20 frames of its videos, those in tar files too."""
    found = [np.asarray(Image.open(path)) for suffix in ("png", "jpg") for path in folder.rglob(f"*.{suffix}")]
    videos = [io.BytesIO(path.read_bytes()) for path in folder.rglob("*.mp4")]
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            videos += [io.BytesIO(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith(".mp4")]
    for video in videos:
        with av.open(video) as container:
            found += [frame.to_ndarray(format="rgb24") for frame in list(container.decode(video=0))[:20]]
    return [picture for picture in found if picture.ndim == 3]  # nuScenes' map is no picture


def detail(picture: np.ndarray) -> float:
    """Return how much the part with eyes and mouth differs from a smooth one."""
    return float(np.abs(cv2.Laplacian(picture[EYES_AND_MOUTH].astype(float), cv2.CV_64F)).mean())


@pytest.mark.parametrize("form", [*LABELS, *CAMERAS])
def test_no_picture_of_any_format_shows_a_face_and_the_rest_stays(faces, tmp_path, form):
    if form == "rerun":
        pytest.importorskip("rerun")
    assert write(faces, form, tmp_path / "out", "--blur", "faces") == 0
    true = street_with_a_face().frames.array()[0]
    shown = pictures(tmp_path / "out")
    assert shown
    for picture in shown:
        assert detail(picture) < detail(true) / 5, (detail(picture), detail(true))
        assert np.abs(picture[80:, 100:130].astype(float) - true[80:, 100:130]).mean() < 6  # her shoulder


def test_what_was_blurred_is_counted_frame_by_frame_and_said(faces, tmp_path, capsys):
    assert write(faces, "llava", tmp_path / "out", "--blur", "faces") == 0
    assert "blurred" in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "blurred.json").read_text())
    assert told["blurred"]["faces"]["licence"] == "Apache-2.0"
    assert told["blurred"]["faces"]["sha256"].startswith("bbff11ce")
    assert told["clips"]
    for clip in told["clips"]:
        assert clip["frames"] == 30
        assert clip["boxes"] == {"faces": [1] * 30}
    assert "has not been measured" in (tmp_path / "out" / "README.md").read_text()
    assert "blurred.json" in (tmp_path / "out" / "SHA256SUMS").read_text()


def test_nothing_is_blurred_that_was_not_asked_for(faces, tmp_path):
    assert write(faces, "llava", tmp_path / "out") == 0
    assert not (tmp_path / "out" / "blurred.json").exists()
    assert all(detail(picture) > detail(street_with_a_face().frames.array()[0]) / 2 for picture in pictures(tmp_path / "out"))


def test_the_catalog_and_the_labels_stay_as_they_were(faces, tmp_path):
    for name, options in (("plain", []), ("blurred", ["--blur", "faces"])):
        assert write(faces, "videofolder", tmp_path / name, *options) == 0
    plain, blurred = (pandas.read_parquet(tmp_path / name / "label_facts.parquet") for name in ("plain", "blurred"))
    pandas.testing.assert_frame_equal(plain.drop(columns="video_sha256"), blurred.drop(columns="video_sha256"))
    assert (plain["video_sha256"] != blurred["video_sha256"]).all()


# -- plates --------------------------------------------------------------------------------------------------------------


def test_plates_are_where_the_bare_checkpoint_finds_them(detector):
    from transformers import AutoImageProcessor, YolosForObjectDetection

    frame = street_with_a_face().frames.array()[0]
    processor, model = AutoImageProcessor.from_pretrained(detector), YolosForObjectDetection.from_pretrained(detector).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=Image.fromarray(frame), return_tensors="pt"))
    truth = processor.post_process_object_detection(outputs, threshold=0.3, target_sizes=[(90, 160)])[0]
    boxes = np.concatenate([open_plate_detector(PlateConfig(str(detector), classes=(name,), device="cpu"))[0](frame)
                            for name in ("car", "license plate", "PERSON")])  # fmt: skip
    assert len(boxes) == len(truth["boxes"]) > 0
    order = np.argsort(truth["labels"].numpy(), kind="stable")
    np.testing.assert_allclose(boxes, truth["boxes"].numpy()[order], atol=1e-3)


def test_plates_and_faces_are_blurred_together_and_told_with_the_detectors_licence(faces, detector, tmp_path):
    options = ["--blur", "faces,plates", "--plate-model", str(detector), "--plate-classes", "car,license plate,person"]
    assert write(faces, "llava", tmp_path / "out", *options) == 0
    told = json.loads((tmp_path / "out" / "blurred.json").read_text())
    assert (told["blurred"]["plates"]["licence"], len(told["blurred"]["plates"]["weights"])) == ("apache-2.0", 64)
    assert set(told["clips"][0]["boxes"]) == {"faces", "plates"}
    assert sum(told["clips"][0]["boxes"]["plates"]) > 0


def test_a_detector_that_knows_no_plates_is_refused_with_what_it_knows(detector):
    with pytest.raises(WorldlineError, match="knows no class bus; it knows car, License-Plate, person: say with --plate-classes"):
        open_plate_detector(PlateConfig(str(detector), classes=("bus",)))


# -- what does not go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "options", "said"),
    [
        ("parquet", ["--blur", "faces"], "parquet takes no --blur: leave it out, or export as llava"),
        ("ply", ["--blur", "faces"], "ply takes no --blur"),
        ("tum", ["--blur", "faces"], "tum takes no --blur"),
        ("llava", ["--blur", "noses"], "--blur: noses cannot be blurred: name faces or plates, or both"),
        ("llava", ["--blur", ","], "--blur: nothing is named: name faces or plates, or both"),
        ("llava", ["--blur", "plates"], "--plate-model goes with --blur plates: give both"),
        ("llava", ["--blur", "faces", "--plate-model", "x"], "--plate-model goes with --blur plates"),
        ("llava", ["--plate-model", "x"], "--plate-model goes with --blur plates: give both, or neither"),
        ("llava", ["--blur", "faces", "--plate-classes", "car"], "--plate-classes goes with --plate-model"),
        ("llava", ["--blur", "plates", "--plate-model", "./no"], "--plate-model: there is no folder ./no"),
    ],
)
def test_what_cannot_be_blurred_is_refused_in_a_sentence_and_nothing_is_written(faces, tmp_path, capsys, form, options, said):
    assert write(faces, form, tmp_path / "out", *options) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_extra_is_named(faces, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert write(faces, "llava", tmp_path / "out", "--blur", "faces") == 1
    assert "needs the package ai-edge-litert: pip install 'worldline[privacy]'" in capsys.readouterr().err
