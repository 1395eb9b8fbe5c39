"""Pictures on their way into a clip: reading, turning upright, resizing, stacking, and what that does to intrinsics."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import WorldlineError
from schemas.media import Video

MEMORY_LIMIT_BYTES = 8 << 30


def read_picture(path: Path, name: str) -> np.ndarray:
    """Return an image file upright (EXIF orientation applied) as RGB `[H, W, 3]` uint8.

    Alpha is composited over black; 16-bit grey is scaled to 8 bits.

    Raises:
        WorldlineError: if the file is missing or cannot be decoded; `name` is what the message calls it.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                grey = np.clip(np.asarray(upright, dtype=np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            if upright.mode == "P" or "A" in upright.getbands():
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright)
            return np.asarray(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable_image(name, error) from error


def unreadable_image(name: str, error: Exception) -> WorldlineError:
    """Return what to tell of an image that cannot be read; Pillow's words would name the stored copy, not the file given."""
    reason = "no image format fits its bytes" if isinstance(error, UnidentifiedImageError) else str(error)
    return WorldlineError(f"cannot read the image {name} ({reason}): replace or remove that file")


def fitted_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Return the size in pixels (width, height) whose longer side is at most `max_side`; never larger than given."""
    if max_side is None or max(width, height) <= max_side:
        return width, height
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize RGB `[H, W, 3]`: along a side that shrinks each pixel is the mean over its area, along one that grows bilinear."""
    smaller = (min(width, picture.shape[1]), min(height, picture.shape[0]))
    if picture.shape[1::-1] != smaller:
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return picture


def pinhole_matrix(fx: float, fy: float, cx: float, cy: float, *, scale_x: float = 1.0, scale_y: float = 1.0) -> np.ndarray:
    """Return the `[3, 3]` intrinsics of an image resized by (`scale_x`, `scale_y`); pixel centres lie at +0.5.

    With that convention a resize multiplies the principal point too, without an offset.
    """
    return np.array([[fx * scale_x, 0.0, cx * scale_x], [0.0, fy * scale_y, cy * scale_y], [0.0, 0.0, 1.0]])


def given_intrinsics(
    intrinsics: tuple[float, float, float, float] | None, original: tuple[int, int], kept: tuple[int, int]
) -> np.ndarray | None:
    """Return given (fx, fy, cx, cy) of the original size as `[3, 3]` for the kept size; sizes are (width, height).

    Raises:
        WorldlineError: if they are not four numbers or the focal lengths are not positive.
    """
    if intrinsics is None:
        return None
    if len(intrinsics) != 4 or min(intrinsics[:2]) <= 0:
        raise WorldlineError(f"intrinsics is {list(intrinsics)}: give fx, fy, cx, cy in pixels of the original frames")
    return pinhole_matrix(*intrinsics, scale_x=kept[0] / original[0], scale_y=kept[1] / original[1])


def keep_frame(frames: list[np.ndarray], picture: np.ndarray, name: str) -> None:
    """Append a frame, unless the frames of `name` would then fill the memory.

    Raises:
        WorldlineError: naming the settings that keep less.
    """
    if (len(frames) + 1) * picture.nbytes > MEMORY_LIMIT_BYTES:
        raise WorldlineError(
            f"{name}: {len(frames) + 1} frames of {picture.shape[1]}x{picture.shape[0]} pixels need more than "
            f"{MEMORY_LIMIT_BYTES / 2**30:.0f} GiB of memory: set max_frames, max_side or end_s"
        )
    frames.append(picture)


def stack_frames(frames: list[np.ndarray]) -> Video:
    """Move RGB frames of one size into a video; `frames` is emptied on the way, so memory never holds them twice."""
    stacked = np.empty((len(frames), *frames[0].shape), np.uint8)
    for index in range(len(stacked) - 1, -1, -1):
        stacked[index] = frames.pop()
    return Video.from_array(stacked)


def check_camera_height(height_m: float | None, sigma_m: float | None) -> None:
    """Refuse a camera height that cannot set a scale.

    Raises:
        WorldlineError: naming the field.
    """
    if height_m is not None and height_m <= 0:
        raise WorldlineError(f"camera_height_m is {height_m} m: it must be positive")
    if sigma_m is not None and (height_m is None or sigma_m <= 0):
        raise WorldlineError(f"camera_height_sigma_m is {sigma_m} m: it must be positive and needs camera_height_m beside it")
