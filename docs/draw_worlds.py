"""Draw the picture of docs/worlds.md: the small worlds over time, and what is known of each pixel.

python docs/draw_worlds.py docs/images/small_worlds.jpg
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from worldline.cameras import invert_rigid
from worldline.worlds.protocols import FIELD_OF_VIEW, look_at
from worldline.worlds.raycast import Picture, cast
from worldline.worlds.toys import BACKGROUND, TOYS

SIZE = 200
TIMES = (0.0, 0.3, 0.55, 0.9)
FASTEST = 3.0  # scene units per normalised time at which a velocity is drawn in full colour


def main() -> None:
    """Write the picture named by the argument."""
    destination = Path(sys.argv[1])
    rows = [np.concatenate(draw_row(name), axis=1) for name in TOYS]
    Image.fromarray(np.concatenate(rows)).save(destination, quality=88, optimize=True)
    print(destination, destination.stat().st_size, "bytes")


def draw_row(name: str) -> list[np.ndarray]:
    """Return one camera's pictures of a world over time, and instances, depth, normals and velocities of the third."""
    focal = SIZE / 2 / np.tan(FIELD_OF_VIEW / 2)
    intrinsics = np.array([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]])
    camera = invert_rigid(look_at(np.array([-0.9]), np.array([0.55])))[0]
    pictures = [cast(TOYS[name](time), camera, intrinsics, SIZE, SIZE, background=BACKGROUND) for time in TIMES]
    return [*(picture.rgb for picture in pictures), *draw_truth(pictures[2])]


def draw_truth(picture: Picture) -> list[np.ndarray]:
    """Return pictures of instances, depth, normals and velocities."""
    seen = picture.depths > 0
    palette = np.array([[235, 235, 235], [214, 96, 77], [67, 147, 195], [127, 188, 65], [178, 121, 188]], np.uint8)
    near, far = picture.depths[seen].min(), picture.depths[seen].max()
    depth = np.where(seen, 255 * (far - picture.depths) / (far - near), 0)
    normals = 127.5 * (1 + picture.normals * np.array([1, -1, -1])) * seen[..., None]
    velocities = 127.5 * (1 + (picture.velocities / FASTEST).clip(-1, 1))
    return [palette[picture.instances], *(_grey(depth), normals.astype(np.uint8), velocities.astype(np.uint8))]


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)


if __name__ == "__main__":
    main()
