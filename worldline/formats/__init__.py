"""File formats of 4D Gaussian scenes: every one that people open, written and read.

    from worldline.formats import read_scene, write_ply

    scene = read_scene("garden.ply")      # by content: PLY, compressed PLY, SPZ, .4dgs, glTF, .splat, or a folder of PLYs
    write_ply(scene, "garden-z-up.ply", up="z")

| format | time | what it is for |
|---|---|---|
| `ply` | one moment | every viewer and tool; lossless |
| `ply_sequence` | frames | what people animate with; lossless at its frames |
| `compressed_ply`, `spz`, `splat` | one moment | the web: small |
| `gltf` | one moment | engines, beside meshes; lossless |
| `fourdgs` | all of it | players of 4D scenes; quantised within bounds |

Each module tells what its format loses. None keeps the fit: the artifact (`Scene4D`) remains the source.
"""

from pathlib import Path

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.files import read_bytes
from worldline.formats.compressed import is_spz, read_compressed_ply, read_spz, write_compressed_ply, write_spz
from worldline.formats.fourdgs_file import is_fourdgs, read_fourdgs, write_fourdgs
from worldline.formats.gltf import read_gltf, write_gltf
from worldline.formats.ply import read_ply, read_ply_sequence, write_ply, write_ply_sequence
from worldline.formats.splat import read_splat, write_splat

__all__ = [
    "read_compressed_ply",
    "read_fourdgs",
    "read_gltf",
    "read_ply",
    "read_ply_sequence",
    "read_scene",
    "read_splat",
    "read_spz",
    "write_compressed_ply",
    "write_fourdgs",
    "write_gltf",
    "write_ply",
    "write_ply_sequence",
    "write_splat",
    "write_spz",
]

_HEAD = 4096  # bytes that tell what a file is
_OTHERS = {
    b"PK\x03\x04": "a zip (SOG bundles are not read): convert it to PLY",
    b"RIFF": "a picture or a sound",
    b"\x89PNG": "a picture",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a Python pickle: export a PLY from where it was trained",
}


def read_scene(path: Path | str) -> Scene4D:
    """Read any known file of Gaussians as a scene, by what it holds, not by its name.

    Args:
        path: a file, or a folder of numbered PLY files. Only .splat files are known by name, because they tell nothing.

    Raises:
        WorldlineError: if it is of no known format, or is damaged; the sentence names the file, the field and the fix.
    """
    path = Path(path)
    if path.is_dir():
        return read_ply_sequence(path)
    head = read_bytes(path, _HEAD)
    if head.startswith(b"ply"):
        return read_compressed_ply(path) if b"packed_position" in head else read_ply(path)
    if is_fourdgs(head):
        return read_fourdgs(path)
    if head.startswith(b"glTF") or head.lstrip()[:1] == b"{":
        return read_gltf(path)
    if is_spz(head):
        return read_spz(path)
    if path.suffix.lower() == ".splat":
        return read_splat(path)
    if not head:
        raise WorldlineError(f"{path} is empty: fetch it again")
    guess = next((told for start, told in _OTHERS.items() if head.startswith(start)), "of no format that is known")
    raise WorldlineError(f"{path} is {guess}; Gaussians are read from PLY, compressed PLY, SPZ, .4dgs, glTF and .splat")
