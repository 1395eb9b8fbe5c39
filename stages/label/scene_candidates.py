"""Candidates about a scene as a whole: how many of a class move in a direction, and things that are not there.

Both need every object to be known, which holds for annotated tracks only; what trackers find in video is never all there is.
"""

import numpy as np

from schemas.tracks import Tracks
from stages.label.candidates import Candidates, Rule, make, reasons
from worldline.kinematics.words import choose, is_none

COUNTED_WORDS = ("left", "right", "toward", "away", "none")
# Classes that may be asked for where none is there: the formats of tracks whose annotators name them, and the classes that a
# viewer could take for them.
_ALL = ("pandaset_tracks", "argoverse2", "nuscenes")
_LOOKALIKES = {
    "bus": (_ALL, ("bus", "van", "truck", "vehicle", "tram", "construction vehicle")),
    "tram": (("pandaset_tracks", "argoverse2"), ("tram", "bus")),
    "motorcycle": (_ALL, ("motorcycle", "bicycle", "cyclist", "scooter", "vehicle", "pedicab")),
    "bicycle": (_ALL, ("bicycle", "cyclist", "motorcycle", "scooter", "vehicle", "pedicab", "bicycle rack")),
    "pedestrian": (_ALL, ("pedestrian", "cyclist", "wheelchair", "stroller", "scooter")),
}
_COLOUR_LOOKALIKES = {
    "red": ("red", "orange", "brown", "purple"),
    "yellow": ("yellow", "orange", "brown", "white"),
    "green": ("green", "blue", "yellow"),
    "blue": ("blue", "green", "purple", "black"),
}
_IRREGULAR = {"person": "people", "bus": "buses"}


def count_candidates(windows: dict[str, np.ndarray], translation: Candidates, tracks: Tracks) -> Candidates:
    """Return, for each class, window and direction, how many objects of the class that the camera shows move so.

    Args:
        windows: `KINEMATIC_WINDOWS` of all objects as arrays, in the order of `translation`.
        translation: the direction of each, and why it is not sure.
        tracks: classes, and when each object is in the picture.
    """
    names, classes = _classes(tracks)
    times, column = np.unique(np.stack([windows["start_s"], windows["end_s"]], 1), axis=0, return_inverse=True)
    object_ids = tracks.objects["track_id"].to_numpy()
    row, column = np.searchsorted(object_ids, windows["track_id"].astype(int)), column.ravel()
    shape = (len(object_ids), len(times))
    word, sure = np.full(shape, None, object), np.zeros(shape, bool)
    word[row, column], sure[row, column] = translation.word, is_none(translation.reason)
    shown = _shown(tracks, object_ids, times)
    asked = (len(names), len(times), len(COUNTED_WORDS))
    present, unsure, counts = np.zeros(asked[:2], int), np.zeros(asked[:2], int), np.zeros(asked)
    np.add.at(present, classes, shown)
    np.add.at(unsure, classes, shown & ~sure)
    np.add.at(counts, classes, (shown & sure)[..., None] & (word[..., None] == np.array(COUNTED_WORDS, object)))
    which, when, code = (index.ravel() for index in np.indices(asked))
    rules: list[Rule] = [
        (np.full(len(which), tracks.origin != "boxes"), "not_all_objects_known"),
        (np.array(names, object)[which] == "unknown", "class_unknown"),
        (present[which, when] == 0, "none_in_view"),
        (unsure[which, when] > 0, "not_all_directions_known"),
    ]
    window = {"track_id": np.full(len(which), -1), "start_s": times[when, 0], "end_s": times[when, 1]}
    return make(
        "counting", "counting", window, reasons(rules), "camera", value=counts.ravel(), code=code + 8 * which,
        word=np.array(COUNTED_WORDS, object)[code], subject=np.array([plural(name) for name in names], object)[which],
    )  # fmt: skip


def absent_candidates(windows: dict[str, np.ndarray], tracks: Tracks) -> Candidates:
    """Return, for each window of the clip, directions asked of a class or colour of car that is not in the clip."""
    names = set(tracks.objects["class_name"].to_pylist())
    cars = [
        colour
        for name, colour in zip(tracks.objects["class_name"].to_pylist(), tracks.objects["colour"].to_pylist(), strict=True)
        if name == "car"
    ]
    form = (tracks.provenance or {}).get("format")
    subjects, why = [], []
    for name, (formats, alike) in _LOOKALIKES.items():
        subjects.append(f"the {name}")
        why.append(
            "classes_not_all_annotated" if form not in formats
            else "something_looks_like_it" if names & {*alike, "unknown"}
            else None
        )  # fmt: skip
    for colour, alike in _COLOUR_LOOKALIKES.items():
        subjects.append(f"the {colour} car")
        doubtful = bool(names & {"unknown", "vehicle", "van", "truck"}) or not cars or "" in cars or set(cars) & set(alike)
        why.append("something_looks_like_it" if doubtful else None)
    times = np.unique(np.stack([windows["start_s"], windows["end_s"]], 1), axis=0)
    count = len(times) * len(subjects)
    when, which = np.divmod(np.arange(count), len(subjects))
    window = {"track_id": np.full(count, -1), "start_s": times[when, 0], "end_s": times[when, 1]}
    reason = choose([np.full(count, tracks.origin != "boxes")], ["not_all_objects_known"])
    reason = np.where(is_none(reason), np.array(why, object)[which], reason)
    word = np.full(count, "absent", object)
    return make(
        "absent_object", "absent_object", window, reason, "camera", word=word,
        subject=np.array(subjects, object)[which], code=1000 + which,
    )  # fmt: skip


def plural(noun: str) -> str:
    """Return the plural of a class name."""
    return _IRREGULAR.get(noun, noun[:-1] + "ies" if noun.endswith("y") else noun + "s")


def _classes(tracks: Tracks) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes, and the class of each object."""
    encoded = tracks.objects["class_name"].combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _shown(tracks: Tracks, object_ids: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return `[N, W]` which objects have a sample in the picture in each window (start and end, `[W, 2]`)."""
    samples = tracks.samples
    seen = samples["x0_px"].is_valid().to_numpy()
    key = np.sort(samples["track_id"].to_numpy()[seen] * 1e6 + samples["time_s"].to_numpy()[seen])
    owner = object_ids[:, None] * 1e6
    return np.searchsorted(key, owner + times[:, 1] + 1e-6) > np.searchsorted(key, owner + times[:, 0] - 1e-6)
