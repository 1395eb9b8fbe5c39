"""Faces in pictures, by MediaPipe's short-range detector, run by LiteRT; anchors, decoding and suppression are ours.

The detector is BlazeFace (Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019), a
single-shot detector of 128 x 128 pixels made for the front camera of a telephone. `face_detection_short_range.tflite` lies
beside this file, Apache-2.0 (see NOTICE). So that small faces are found, it looks at the whole frame and at overlapping
square tiles of it. How many faces of a street it finds has not been measured.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from schemas.errors import WorldlineError

MODEL = Path(__file__).with_name("face_detection_short_range.tflite")
MODEL_NAME, MODEL_LICENCE = "MediaPipe face_detection_short_range", "Apache-2.0"
THRESHOLD = 0.5  # MediaPipe's own
_SIDE = 128  # pixels that the network sees
_GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell: strides of 8, and three layers with strides of 16
_OVERLAP = 0.3  # intersection over union from which two boxes are one face
_SMALLEST_TILE = 192  # pixels
_STEP = 2 / 3  # of a tile's side, from one tile to the next

# Scores and boxes as the network gives them for a picture [128, 128, 3] in -1..1: raw boxes [896, 16], logits [896].
Network = Callable[[Float32[np.ndarray, "128 128 3"]], tuple[Float32[np.ndarray, "896 16"], Float32[np.ndarray, " 896"]]]


def open_face_network() -> Network:
    """Load the detector; it runs in one thread, so that the same frame gives the same boxes.

    Raises:
        WorldlineError: if LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise WorldlineError("finding faces needs the package ai-edge-litert: pip install 'worldline[privacy]'") from error
    interpreter = Interpreter(model_path=str(MODEL), num_threads=1)
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]["index"]
    boxes, scores = (item["index"] for item in interpreter.get_output_details())

    def run(picture: Float32[np.ndarray, "128 128 3"]) -> tuple[np.ndarray, np.ndarray]:
        interpreter.set_tensor(taken, picture[None])
        interpreter.invoke()
        return interpreter.get_tensor(boxes)[0], interpreter.get_tensor(scores)[0, :, 0]

    return run


def find_faces(
    frame: UInt8[np.ndarray, "H W 3"], network: Network, threshold: float = THRESHOLD
) -> tuple[Float64[np.ndarray, "N 4"], Float64[np.ndarray, " N"]]:
    """Return the boxes (x0, y0, x1, y1 in pixels; from brows to chin) and scores of the faces in a frame, best first."""
    found, scored = [np.zeros((0, 4))], [np.zeros(0)]
    for left, top, side in tiles(frame.shape[1], frame.shape[0]):
        boxes, scores = decode_faces(*network(_square(frame, left, top, side)), threshold)
        found.append(boxes * side + [left, top, left, top])
        scored.append(scores)
    boxes, scores = np.concatenate(found), np.concatenate(scored)
    kept = suppress(boxes, scores)
    return boxes[kept], scores[kept]


def tiles(width: int, height: int) -> list[tuple[int, int, int]]:
    """Return (left, top, side) of the squares that are looked at, in pixels.

    The first holds the whole frame and reaches beyond it. The others lie inside and overlap by at least a third; their
    sides are 192 pixels, and twice that again and again while they fit.
    """
    whole = max(width, height)
    squares = [((width - whole) // 2, (height - whole) // 2, whole)]
    side = _SMALLEST_TILE
    while side <= min(width, height) and side < whole:
        across, down = (_starts(length, side) for length in (width, height))
        squares += [(left, top, side) for top in down for left in across]
        side *= 2
    return squares


def _starts(length: int, side: int) -> list[int]:
    count = int(np.ceil((length - side) / (side * _STEP))) + 1
    return [int(start) for start in np.linspace(0, length - side, count)]


def _square(frame: UInt8[np.ndarray, "H W 3"], left: int, top: int, side: int) -> Float32[np.ndarray, "128 128 3"]:
    """Return a square of a frame as the network wants it; what lies beyond the frame is black."""
    inside = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    height, width = (max(1, round(length * _SIDE / side)) for length in inside.shape[:2])
    shrinks = cv2.INTER_AREA if side > _SIDE else cv2.INTER_LINEAR
    picture = np.full((_SIDE, _SIDE, 3), -1, np.float32)
    x, y = (round(max(-start, 0) * _SIDE / side) for start in (left, top))
    resized = cv2.resize(inside, (width, height), interpolation=shrinks)[: _SIDE - y, : _SIDE - x]
    picture[y : y + height, x : x + width] = resized.astype(np.float32) / 127.5 - 1
    return picture


def anchors() -> Float64[np.ndarray, "896 2"]:
    """Return the centres (x, y in 0..1) that the network's boxes are relative to, in the order of its outputs."""
    centres = []
    for cells, repeats in _GRIDS:
        y, x = np.meshgrid(*[(np.arange(cells) + 0.5) / cells] * 2, indexing="ij")
        centres.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), repeats, axis=0))
    return np.concatenate(centres)


def decode_faces(
    raw: Float32[np.ndarray, "896 16"], logits: Float32[np.ndarray, " 896"], threshold: float
) -> tuple[Float64[np.ndarray, "N 4"], Float64[np.ndarray, " N"]]:
    """Return boxes (x0, y0, x1, y1 as shares of the square's side) and scores of what scores at least the threshold.

    Args:
        raw: centre x, y relative to the anchor, width, height (in 128ths of the side), and six key points that are not used.
        logits: of the scores.
        threshold: least score, 0 to 1.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    good = scores >= threshold
    centre = anchors()[good] + raw[good, :2].astype(np.float64) / _SIDE
    half = raw[good, 2:4].astype(np.float64) / _SIDE / 2
    return np.concatenate([centre - half, centre + half], 1), scores[good]


def suppress(boxes: Float64[np.ndarray, "N 4"], scores: Float64[np.ndarray, " N"]) -> Int64[np.ndarray, " K"]:
    """Return the indices of the boxes that overlap no better one by more than 0.3 (intersection over union), best first."""
    order = np.argsort(-scores, kind="stable")
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        shared = np.minimum(boxes[order, 2:], boxes[best, 2:]) - np.maximum(boxes[order, :2], boxes[best, :2])
        intersection = np.prod(np.clip(shared, 0, None), axis=1)
        order = order[intersection <= _OVERLAP * (area[order] + area[best] - intersection)]
    return np.array(kept, np.int64)
