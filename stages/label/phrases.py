"""Phrases that point at one object and no other, and the rendering of question texts, column-wise."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.cameras import CameraPath
from schemas.labels import EGO_TRACK_ID
from schemas.tracks import Tracks
from worldline.kinematics.definitions import box_iou
from worldline.kinematics.words import choose, is_none

_BOX = ("x0_px", "y0_px", "x1_px", "y1_px")
_AMBIGUOUS_IOU = 0.5
_AMBIGUOUS_M = 3.0


def referring_phrases(
    tracks: Tracks, path: CameraPath, ids: np.ndarray, start_s: np.ndarray, end_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Name each object so that nothing else in its window answers to the name.

    Colour and class alone suffice where annotations list every object and no other track shares them; tracks found in
    video may have missed a twin, so their phrase also gives the box, in pixels of the clip, at the first sample in the
    window. Annotated tracks that no camera of the log shows are told by where they are then: from the camera's place in
    whole metres, or in coordinates where there is no camera.

    Args:
        tracks: the tracks.
        path: where the camera is in each frame.
        ids: `[K]` track ids (0 is the camera).
        start_s: `[K]` beginning of the window of each.
        end_s: `[K]` its end.

    Returns:
        `[K]` phrases (None where there is no unique one) and `[K]` reasons ("no_unique_phrase") or None.
    """
    # Pairs repeat the same object and window many times: name each once (`np.unique` of rows takes ten times as long).
    order = np.lexsort((end_s, start_s, ids))
    wanted = np.stack([ids, start_s, end_s], -1)[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (wanted[1:] != wanted[:-1]).any(1)
    wanted = wanted[fresh]
    phrase = np.full(len(order), None, object)
    phrase[order] = _phrases(tracks, path, wanted[:, 0].astype(np.int64), *wanted[:, 1:].T)[np.cumsum(fresh) - 1]
    return phrase, choose([is_none(phrase)], ["no_unique_phrase"])


def _phrases(tracks: Tracks, path: CameraPath, ids: np.ndarray, start_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
    """Return the phrase of each object in its window, None where there is no unique one."""
    objects = tracks.objects
    nouns, unique = _nouns(objects)
    object_ids = objects["track_id"].to_numpy().astype(np.int64)
    frame = tracks.samples["frame"].to_numpy().astype(np.int64)
    sample_id = tracks.samples["track_id"].to_numpy().astype(np.int64)
    time = tracks.samples["time_s"].to_numpy()
    boxes = np.stack([tracks.samples[name].to_numpy() for name in _BOX], -1).astype(float)
    place = np.stack([tracks.samples[name].to_numpy() for name in "xyz"], -1).astype(float)
    in_view = np.isfinite(boxes).all(1)
    by_place = tracks.origin == "boxes" and tracks.scale_source != "none" and not in_view.any()
    shown = np.flatnonzero(np.isfinite(place).all(1) if by_place else in_view)
    shown = shown[np.lexsort((time[shown], sample_id[shown]))]
    # One sorted key for (track, time): times are below a million seconds, ids are whole numbers.
    key = sample_id[shown] * 1e6 + time[shown]
    first = np.searchsorted(key, ids * 1e6 + start_s - 1e-6)
    safe = shown[np.minimum(first, max(len(shown) - 1, 0))] if len(shown) else np.zeros(len(ids), int)
    told = np.zeros(len(ids), bool)
    text = np.full(len(ids), "", dtype=object)
    if len(shown):
        told = (first < len(shown)) & (sample_id[safe] == ids) & (time[safe] <= end_s + 1e-6)
        at = pa.array(np.char.mod("%.1f", time[safe]))
        if by_place:
            noun_code = np.unique(nouns.astype(str), return_inverse=True)[1][np.searchsorted(object_ids, sample_id)]
            told &= ~_crowded(frame[safe], noun_code[safe], ids, place[safe], frame, noun_code, sample_id, place)
            text = _text(
                pc.binary_join_element_wise(" ", pa.array(_whereabouts(path, frame[safe], place[safe])), " at ", at, " s", "")
            )
        else:
            told &= ~_overlapped(frame[safe], ids, boxes[safe], frame[shown], sample_id[shown], boxes[shown])
            corners = [pa.array(np.char.mod("%d", np.rint(boxes[safe, axis]).astype(int))) for axis in range(4)]
            inside = pc.binary_join_element_wise(*corners, ", ")
            text = _text(pc.binary_join_element_wise(" in box [", inside, "] at ", at, " s", ""))
    row = np.minimum(np.searchsorted(object_ids, ids), max(len(object_ids) - 1, 0))
    noun = nouns[row] if len(object_ids) else np.full(len(ids), "", object)
    short = unique[row] & (tracks.origin == "boxes") if len(object_ids) else np.zeros(len(ids), bool)
    camera = ids == EGO_TRACK_ID
    return choose([camera, short, told], ["the camera", noun, noun + text])


def _whereabouts(path: CameraPath, frame: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return "12 m ahead and 3 m left of the camera" or "at x = 12 m, y = 340 m" in frames without a camera, `[K]`."""
    pose = path.world_from_camera[frame]
    offset = place - pose[:, :3, 3]
    forward, right = (pose[:, :2, axis] / np.maximum(np.linalg.norm(pose[:, :2, axis], axis=1), 1e-9)[:, None] for axis in (2, 0))
    ahead, aside = np.rint((offset[:, :2] * forward).sum(1)), np.rint((offset[:, :2] * right).sum(1))
    along = np.char.add(np.char.mod("%d m ", np.abs(ahead).astype(int)), np.where(ahead < 0, "behind", "ahead"))
    across = np.char.add(np.char.mod("%d m ", np.abs(aside).astype(int)), np.where(aside < 0, "left of", "right of"))
    straight = np.char.add(along, np.where(ahead < 0, "", " of"))
    both = np.char.add(np.char.add(along, " and "), across)
    words = np.char.add(np.where(aside == 0, straight, np.where(ahead == 0, across, both)), " the camera")
    metres = np.rint(place).astype(int)
    point = np.char.add(np.char.mod("at x = %d m, ", metres[:, 0]), np.char.mod("y = %d m", metres[:, 1]))
    return np.where(path.registered[frame], words, point)


def _crowded(
    frame: np.ndarray,
    noun: np.ndarray,
    ids: np.ndarray,
    place: np.ndarray,
    all_frames: np.ndarray,
    all_nouns: np.ndarray,
    all_ids: np.ndarray,
    all_places: np.ndarray,
) -> np.ndarray:
    """Whether another track of the same noun is so near in the same frame that whole metres do not tell which is meant."""
    query, other = _of_same_frame(frame, all_frames)
    alike = (all_ids[other] != ids[query]) & (all_nouns[other] == noun[query])
    near = np.linalg.norm((all_places[other] - place[query])[:, :2], axis=1) < _AMBIGUOUS_M
    return np.bincount(query, alike & near, len(frame)) > 0


def _nouns(objects: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return "the white car" per object, and whether no other object shares it and its class is known."""
    names = objects["class_name"].combine_chunks()
    unknown = pc.equal(names, "unknown")
    words = pc.if_else(unknown, "object", pc.utf8_lower(names))
    colours = objects["colour"].combine_chunks()
    prefix = pc.if_else(pc.equal(colours, ""), "", pc.binary_join_element_wise(colours, "", " "))
    nouns = pc.binary_join_element_wise("the ", prefix, words, "")
    encoded = nouns.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    alone = np.bincount(codes, minlength=1)[codes] == 1 if len(codes) else np.zeros(0, bool)
    # "the car" also fits every white car, so a phrase without a colour must be alone in its class.
    classes = names.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    lonely = np.bincount(classes, minlength=1)[classes] == 1 if len(classes) else np.zeros(0, bool)
    bare = pc.equal(colours, "").to_numpy(zero_copy_only=False)
    known = ~unknown.to_numpy(zero_copy_only=False)
    return _text(nouns), np.where(bare, lonely, alone) & known


def _overlapped(
    frame: np.ndarray, ids: np.ndarray, boxes: np.ndarray, all_frames: np.ndarray, all_ids: np.ndarray, all_boxes: np.ndarray
) -> np.ndarray:
    """Whether another track's box in the same frame overlaps so much that the box does not tell which is meant."""
    query, other = _of_same_frame(frame, all_frames)
    twin = (all_ids[other] != ids[query]) & (box_iou(boxes[query], all_boxes[other]) > _AMBIGUOUS_IOU)
    return np.bincount(query, twin, len(frame)) > 0


def _of_same_frame(frame: np.ndarray, all_frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of an entry of `frame` and an entry of `all_frames` in that frame."""
    order = np.argsort(all_frames, kind="stable")
    low = np.searchsorted(all_frames[order], frame)
    count = np.searchsorted(all_frames[order], frame, side="right") - low
    query = np.repeat(np.arange(len(frame)), count)
    return query, order[np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)]


def _text(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(object)


def render(templates: tuple[str, ...], chosen: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
    """Fill `templates[chosen[k]]` with the k-th of each of `values` (strings)."""
    rows = zip(*(column.tolist() for column in values.values()), strict=True)
    texts = [
        templates[index].format_map(dict(zip(values, row, strict=True))) for index, row in zip(chosen.tolist(), rows, strict=True)
    ]
    return np.array(texts, object)


def read_back(templates: tuple[str, ...], chosen: np.ndarray, texts: pa.ChunkedArray, name: str) -> pa.Array:
    """Return what stands for placeholder `name` in texts that `render` made; null where `chosen` is none of the templates."""
    result = np.full(len(chosen), None, object)
    for index, template in enumerate(templates):
        rows = np.flatnonzero(chosen == index)
        if not len(rows):
            continue
        pattern = re.sub(r"\\\{(\w+)\\\}", lambda found: f"(?P<{name}>.+)" if found[1] == name else ".+", re.escape(template))
        found = pc.struct_field(pc.extract_regex(texts.take(pa.array(rows)), f"^{pattern}$"), name)
        result[rows] = _text(found)
    return pa.array(result, pa.string())


def mix(*columns: np.ndarray | int) -> np.ndarray:
    """Return `[K]` uint64 hashes of integer columns (splitmix64): the same content gives the same number in any order.

    Columns are broadcast against each other.
    """
    state: np.ndarray = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            state = (state ^ np.atleast_1d(np.asarray(column, np.int64)).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state
