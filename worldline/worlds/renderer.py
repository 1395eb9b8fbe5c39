"""Drawing worlds off screen with VTK: colour, depth and object ids of one camera.

Light is computed here per vertex and multiplied with the textures; VTK only projects, filters and hides. Colour is
drawn at twice the size and averaged (4 samples per pixel on top of mipmaps); depth and ids are drawn once per pixel
through the pixel's centre, so that they never mix two surfaces.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import pyvista
import vtk
from jaxtyping import Float32, UInt8, UInt16
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from schemas.errors import WorldlineError
from worldline.worlds.light import Weather, highlight, light_on
from worldline.worlds.scene import Actor, Lens, Mesh, Part, Scene
from worldline.worlds.shapes import grid, shadow_outline

NEAR_M, FAR_M = 0.5, 400.0
SUPERSAMPLING = 2


@dataclass(frozen=True, eq=False)
class View:
    """What a camera sees.

    Attributes:
        rgb: `[H, W, 3]`.
        depth_m: `[H, W]` distance along the optical axis in metres, 0 where there is only sky.
        ids: `[H, W]` track id of the actor, 0 elsewhere.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    depth_m: Float32[np.ndarray, "H W"]
    ids: UInt16[np.ndarray, "H W"]


def render(scene: Scene, lens: Lens, world_from_camera: np.ndarray, time_s: float) -> View:
    """Draw one view; use a `Renderer` for more than one."""
    with Renderer(scene, lens) as renderer:
        return renderer.draw(world_from_camera, time_s)


class Renderer:
    """A scene loaded into two off-screen windows, one for colour and one for depth and ids.

    Args:
        scene: what to draw.
        lens: with which camera.
        colour: false loads no textures, for depth and ids alone.

    Raises:
        WorldlineError: if this machine has no OpenGL, in hardware or in software.
    """

    def __init__(self, scene: Scene, lens: Lens, *, colour: bool = True):
        self.scene, self.lens = scene, lens
        self._textures: dict[int, vtk.vtkTexture] = {}
        size = (lens.width, lens.height)
        self._colour = _window((size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)) if colour else None
        self._labels = _window(size)
        for mesh in scene.static:
            self._add(mesh, 0)
        self._sky = [] if self._colour is None else [self._add_sky(self._colour)]
        self._actors: list[tuple[Actor, list[tuple[Part, list[vtk.vtkActor], vtk.vtkPolyData]]]] = []
        self._shadows: list[tuple[Actor, np.ndarray, vtk.vtkPolyData]] = []
        for actor in scene.actors:
            self._actors.append((actor, [(part, *self._add(part.mesh, actor.track_id)) for part in actor.parts]))
            if self._colour is not None and actor.motion.knot_mps.max() > 0:
                self._shadows.append((actor, _body_points(actor), self._add_shadow(self._colour)))
        self._posed: set[int] = set()

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release both windows."""
        for plotter in (self._colour, self._labels):
            if plotter is not None:
                plotter.close()

    def draw(self, world_from_camera: np.ndarray, time_s: float) -> View:
        """Draw the view of a camera (`[4, 4]`, OpenCV axes) at a time.

        Raises:
            ValueError: if the scene was loaded without colour.
        """
        if self._colour is None:
            raise ValueError("loaded without colour: use draw_depth")
        depth, ids = self.draw_depth(world_from_camera, time_s)
        _aim(self._colour, self.lens, world_from_camera)
        for prop in self._sky:
            prop.SetPosition(*world_from_camera[:3, 3])
        large = _pixels(self._colour)
        size = (self.lens.width, self.lens.height)
        rgb = cv2.resize(large, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        weather = self.scene.weather
        haze = np.where(depth > 0, 1 - np.exp(-depth / weather.haze_m), 0).astype(np.float32)[..., None]
        rgb += haze * (np.array(weather.haze_rgb, np.float32) - rgb)
        return View(np.clip(rgb + 0.5, 0, 255).astype(np.uint8), depth, ids)

    def draw_depth(self, world_from_camera: np.ndarray, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Return depth in metres and track ids `[H, W]` alone, as in `View`."""
        self._pose(time_s)
        _aim(self._labels, self.lens, world_from_camera)
        code = _pixels(self._labels)
        ids = (code[..., 0].astype(np.uint16) << 8) | code[..., 1]
        return _depth(self._labels, (self.lens.height, self.lens.width)), ids

    def _add(self, mesh: Mesh, track_id: int) -> tuple[list[vtk.vtkActor], vtk.vtkPolyData]:
        """Put a mesh into the windows; return its props, and the data that hold its light."""
        data = _triangles(mesh)
        flat = _actor(data)
        flat.GetProperty().SetColor(*(value / 255 for value in (track_id >> 8, track_id & 255, 0)))
        self._labels.renderer.AddActor(flat)
        if self._colour is None:
            return [flat], data
        data = _painted(data, mesh, _shade(mesh, self.scene.sun_direction, None, self.scene.weather))
        textured = _actor(data)
        textured.SetTexture(self._texture(mesh.texture))
        self._colour.renderer.AddActor(textured)
        return [textured, flat], data

    def _texture(self, image: np.ndarray) -> vtk.vtkTexture:
        if id(image) not in self._textures:
            texture = pyvista.Texture(image)
            texture.MipmapOn()
            texture.InterpolateOn()
            texture.SetMaximumAnisotropicFiltering(1)
            texture.SetWrap(vtk.vtkTexture.ClampToEdge)
            self._textures[id(image)] = texture
        return self._textures[id(image)]

    def _add_sky(self, plotter: pyvista.Plotter) -> vtk.vtkActor:
        """Hang the panorama on a dome around the camera; only colour, so that depth and ids stay empty there."""
        sky = self.scene.sky
        below = np.repeat(sky[-1:], 24, axis=0) // 2 + np.array([60, 62, 58], np.uint8)
        azimuth, elevation = np.meshgrid(np.linspace(0, 2 * np.pi, 65), np.linspace(-0.1, np.pi / 2, 24))
        points = (
            0.9
            * FAR_M
            * np.stack([np.cos(elevation) * np.cos(azimuth), -np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1)
        )
        split = len(below) / (len(sky) + len(below))
        v = np.where(elevation < 0, split * (1 + elevation / 0.1), split + (1 - split) * elevation / (np.pi / 2))
        dome = grid(points, np.concatenate([sky, below]))
        dome.uv[:, 1] = v.ravel()
        data = _painted(_triangles(dome), dome, np.full((len(dome.points), 3), 255, np.uint8))
        prop = _actor(data)
        prop.SetTexture(self._texture(dome.texture))
        plotter.renderer.AddActor(prop)
        return prop

    def _add_shadow(self, plotter: pyvista.Plotter) -> vtk.vtkPolyData:
        data = vtk.vtkPolyData()
        prop = _actor(data)
        prop.GetProperty().SetColor(0.03, 0.035, 0.05)
        prop.GetProperty().SetOpacity(self.scene.weather.shadow)
        plotter.renderer.AddActor(prop)
        return data

    def _pose(self, time_s: float) -> None:
        """Move every actor to its place; those that never move only once."""
        for actor, parts in self._actors:
            if actor.motion.knot_mps.max() == 0 and actor.track_id in self._posed:
                continue
            self._posed.add(actor.track_id)
            world_from_actor, travelled = actor.motion.world_from_actor(time_s), actor.motion.distance(time_s)
            for part, props, data in parts:
                pose = world_from_actor @ part.actor_from_part(travelled)
                matrix = vtk.vtkMatrix4x4()
                matrix.DeepCopy(pose.ravel().tolist())
                for prop in props:
                    prop.SetUserMatrix(matrix)
                if self._colour is not None:
                    light = _shade(part.mesh, self.scene.sun_direction, pose[:3, :3], self.scene.weather)
                    data.GetPointData().SetScalars(_vtk_array(light))
        for actor, points, data in self._shadows:
            pose = actor.motion.world_from_actor(time_s)
            height = actor.motion.height_m
            outline = shadow_outline(points @ pose[:3, :3].T + pose[:3, 3], self.scene.sun_direction, height)
            _set_polygon(data, np.column_stack([outline, np.full(len(outline), height + 0.012)]))


def _window(size: tuple[int, int]) -> pyvista.Plotter:
    # without a display VTK tries X first, warns, and goes on to EGL or OSMesa: nothing that a user should read
    warnings = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    plotter = pyvista.Plotter(off_screen=True, window_size=list(size), lighting="none")
    usable = _native(plotter).SupportsOpenGL()
    vtk.vtkObject.SetGlobalWarningDisplay(warnings)
    if not usable:
        plotter.close()
        raise WorldlineError(
            "worlds cannot be drawn: VTK found no OpenGL on this machine; install Mesa's EGL "
            "(Debian and Ubuntu: apt install libegl1) or its off-screen library (libosmesa6)"
        )
    plotter.renderer.SetBackground(0, 0, 0)
    _native(plotter).SetMultiSamples(0)
    return plotter


def _native(plotter: pyvista.Plotter) -> Any:
    """Return the plotter's VTK window."""
    return plotter.render_window


def _aim(plotter: pyvista.Plotter, lens: Lens, world_from_camera: np.ndarray) -> None:
    camera = plotter.renderer.GetActiveCamera()
    position, rotation = world_from_camera[:3, 3], world_from_camera[:3, :3]
    camera.SetPosition(*position)
    camera.SetFocalPoint(*(position + rotation[:, 2]))
    camera.SetViewUp(*-rotation[:, 1])
    camera.SetViewAngle(np.degrees(2 * np.arctan(lens.height / 2 / lens.focal_px)))
    camera.SetClippingRange(NEAR_M, FAR_M)


def _pixels(plotter: pyvista.Plotter) -> np.ndarray:
    """Render and return the image `[h, w, 3]` uint8."""
    window = _native(plotter)
    window.Render()
    width, height = window.GetSize()
    data = vtk.vtkUnsignedCharArray()
    window.GetPixelData(0, 0, width - 1, height - 1, 0, data, 0)
    return vtk_to_numpy(data).reshape(height, width, 3)[::-1]


def _depth(plotter: pyvista.Plotter, shape: tuple[int, int]) -> np.ndarray:
    """Return the depth of the last rendering in metres, 0 where nothing was drawn."""
    data = vtk.vtkFloatArray()
    _native(plotter).GetZbufferData(0, 0, shape[1] - 1, shape[0] - 1, data)
    buffer = vtk_to_numpy(data).reshape(shape)[::-1].astype(np.float64)
    depth = NEAR_M * FAR_M / (FAR_M - buffer * (FAR_M - NEAR_M))
    return np.where(buffer < 1.0, depth, 0.0).astype(np.float32)


def _vtk_array(values: np.ndarray) -> vtk.vtkDataArray:
    return numpy_to_vtk(np.ascontiguousarray(values), deep=True)


def _triangles(mesh: Mesh) -> vtk.vtkPolyData:
    """Return points and faces alone."""
    data = vtk.vtkPolyData()
    points = vtk.vtkPoints()
    points.SetData(_vtk_array(mesh.points.astype(np.float32)))
    data.SetPoints(points)
    cells = vtk.vtkCellArray()
    cells.SetData(3, _id_array(mesh.faces.ravel()))
    data.SetPolys(cells)
    return data


def _painted(triangles: vtk.vtkPolyData, mesh: Mesh, rgb: np.ndarray) -> vtk.vtkPolyData:
    """Return the same points and faces with the mesh's texture coordinates and light `[N, 3]` uint8."""
    data = vtk.vtkPolyData()
    data.SetPoints(triangles.GetPoints())
    data.SetPolys(triangles.GetPolys())
    uv = _vtk_array(mesh.uv.astype(np.float32))
    uv.SetName("uv")
    data.GetPointData().SetTCoords(uv)
    data.GetPointData().SetScalars(_vtk_array(rgb))
    return data


def _id_array(values: np.ndarray) -> vtk.vtkIdTypeArray:
    return numpy_to_vtk(np.ascontiguousarray(values, np.int64), deep=True, array_type=vtk.VTK_ID_TYPE)


def _set_polygon(data: vtk.vtkPolyData, corners: np.ndarray) -> None:
    points = vtk.vtkPoints()
    points.SetData(_vtk_array(corners.astype(np.float32)))
    cells = vtk.vtkCellArray()
    cells.InsertNextCell(len(corners), list(range(len(corners))))
    data.SetPoints(points)
    data.SetPolys(cells)
    data.Modified()


def _actor(data: vtk.vtkPolyData) -> vtk.vtkActor:
    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputData(data)
    actor = vtk.vtkActor()
    actor.SetMapper(mapper)
    actor.GetProperty().LightingOff()
    return actor


def _shade(mesh: Mesh, sun_direction: np.ndarray, world_from_mesh: np.ndarray | None, weather: Weather) -> np.ndarray:
    """Return the light on every vertex `[N, 3]` uint8, by which the texture is multiplied."""
    if mesh.lit:
        return np.full((len(mesh.points), 3), 255, np.uint8)
    normals = mesh.normals if world_from_mesh is None else mesh.normals @ world_from_mesh.T
    light = light_on(normals, sun_direction, 1.0, weather) + highlight(normals, sun_direction, mesh.specular)[:, None]
    return np.clip(light * 255, 0, 255).astype(np.uint8)


def _body_points(actor: Actor) -> np.ndarray:
    """Return points of an actor's parts in its frame at rest, thinned: enough for the outline of its shadow."""
    return np.concatenate([part.mesh.points[::2] + np.asarray(part.pivot) for part in actor.parts])
