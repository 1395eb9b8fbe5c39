"""Project 3D Gaussians to the image: local affine (EWA) approximation, forward and hand-written backward.

Zwicker et al., "EWA splatting", 2002; Kerbl et al., "3D Gaussian splatting", 2023, section 4. A Gaussian with covariance S
around the camera-space point p becomes one with covariance J S J^T + eps2d around pixel(p), where J is the derivative of
pixel(p). Four camera models give pixel(p), J, and for the backward the derivative of J:

- pinhole: x/z and y/z; the direction in which J is taken is clamped to 0.3 times the half field of view beyond the border;
- ortho: x and y;
- fisheye: equidistant, the angle to the axis is the distance from the principal point;
- equirectangular: longitude and latitude, the whole sphere over the image. Longitude's share of J grows without bound
  towards the poles and is softened there, within about half a row of pixels.

The first three are gsplat 1.5.3's, with OpenCV axes and pixel centres at +0.5; what gsplat keeps from dividing by zero with
small constants is here the limit itself.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from worldline.threads import map_pieces

ALPHA_THRESHOLD = 1.0 / 255.0
PINHOLE, ORTHO, FISHEYE, EQUIRECTANGULAR = range(4)
MODELS = {"pinhole": PINHOLE, "ortho": ORTHO, "fisheye": FISHEYE, "equirectangular": EQUIRECTANGULAR}
RADIUS_MAXIMUM = 1 << 20  # pixels
NEAR_AXIS = 0.01  # squared tangent of the angle to the axis below which fisheye derivatives are summed as series
CHUNK = 4096  # Gaussians per piece of work: fixed, so that sums over pieces do not depend on the number of threads


@numba.njit(nogil=True, cache=True, inline="always")
def _rotation(quat, rotation):  # type: ignore[no-untyped-def]
    """Write the rotation matrix of a wxyz quaternion of any length and return the inverse of that length."""
    inverse = 1.0 / math.sqrt(max(quat[0] ** 2 + quat[1] ** 2 + quat[2] ** 2 + quat[3] ** 2, 1e-24))
    w, x, y, z = quat[0] * inverse, quat[1] * inverse, quat[2] * inverse, quat[3] * inverse
    rotation[0, 0] = 1 - 2 * (y * y + z * z)
    rotation[0, 1] = 2 * (x * y - w * z)
    rotation[0, 2] = 2 * (x * z + w * y)
    rotation[1, 0] = 2 * (x * y + w * z)
    rotation[1, 1] = 1 - 2 * (x * x + z * z)
    rotation[1, 2] = 2 * (y * z - w * x)
    rotation[2, 0] = 2 * (x * z - w * y)
    rotation[2, 1] = 2 * (y * z + w * x)
    rotation[2, 2] = 1 - 2 * (x * x + y * y)
    return inverse


@numba.njit(nogil=True, cache=True, inline="always")
def _rotation_backward(quat, inverse, v, out):  # type: ignore[no-untyped-def]
    """Write the gradient by the raw quaternion from the gradient `v` by the rotation matrix."""
    w, x, y, z = quat[0] * inverse, quat[1] * inverse, quat[2] * inverse, quat[3] * inverse
    vw = 2 * (x * (v[2, 1] - v[1, 2]) + y * (v[0, 2] - v[2, 0]) + z * (v[1, 0] - v[0, 1]))
    vx = 2 * (-2 * x * (v[1, 1] + v[2, 2]) + y * (v[0, 1] + v[1, 0]) + z * (v[0, 2] + v[2, 0]) + w * (v[2, 1] - v[1, 2]))
    vy = 2 * (x * (v[0, 1] + v[1, 0]) - 2 * y * (v[0, 0] + v[2, 2]) + z * (v[1, 2] + v[2, 1]) + w * (v[0, 2] - v[2, 0]))
    vz = 2 * (x * (v[0, 2] + v[2, 0]) + y * (v[1, 2] + v[2, 1]) - 2 * z * (v[0, 0] + v[1, 1]) + w * (v[1, 0] - v[0, 1]))
    along = vw * w + vx * x + vy * y + vz * z  # the length of the quaternion has no effect
    out[0] = (vw - along * w) * inverse
    out[1] = (vx - along * x) * inverse
    out[2] = (vy - along * y) * inverse
    out[3] = (vz - along * z) * inverse


@numba.njit(nogil=True, cache=True, inline="always")
def _clamped(value, low, high):  # type: ignore[no-untyped-def]
    return min(max(value, low), high)


class Settings(NamedTuple):
    """What is the same for all Gaussians and cameras; `model` is one of `MODELS`' values, the rest as in `rasterization`."""

    model: int
    width: int
    height: int
    near: float
    far: float
    eps2d: float
    radius_clip: float
    antialiased: bool


@numba.njit(nogil=True, cache=True, inline="always")
def _limits(K, width, height):  # type: ignore[no-untyped-def]
    """Return the range of x/z and y/z in which a pinhole camera's Jacobian is taken."""
    margin_x, margin_y = 0.15 * width / K[0, 0], 0.15 * height / K[1, 1]
    return (
        -K[0, 2] / K[0, 0] - margin_x,
        (width - K[0, 2]) / K[0, 0] + margin_x,
        -K[1, 2] / K[1, 1] - margin_y,
        (height - K[1, 2]) / K[1, 1] + margin_y,
    )


@numba.njit(nogil=True, cache=True, inline="always")
def _camera_point(view, m):  # type: ignore[no-untyped-def]
    return (
        view[0, 0] * m[0] + view[0, 1] * m[1] + view[0, 2] * m[2] + view[0, 3],
        view[1, 0] * m[0] + view[1, 1] * m[1] + view[1, 2] * m[2] + view[1, 3],
        view[2, 0] * m[0] + view[2, 1] * m[1] + view[2, 2] * m[2] + view[2, 3],
    )


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fisheye_series(x, y, z):  # type: ignore[no-untyped-def]
    """Return g = angle / r with r^2 = x^2 + y^2, h = (dg/dr) / r and k = (dh/dr) / r: all that derivatives of x g, y g need."""
    square = x * x + y * y
    if z > 0.0 and square < NEAR_AXIS * z * z:
        q, power = square / (z * z), 1.0
        g = h = k = 0.0
        for n in range(9):
            g += power / (2 * n + 1)  # arctan: g z = sum_n (-q)^n / (2 n + 1)
            h -= power * 2 * (n + 1) / (2 * n + 3)
            k += power * 4 * (n + 1) * (n + 2) / (2 * n + 5)
            power *= -q
        return g / z, h / z**3, k / z**5
    radius, inverse = math.sqrt(square), 1.0 / (square + z * z)
    g = math.atan2(radius, z) / radius
    h = (z * inverse - g) / square
    return g, h, (-2.0 * z * inverse * inverse - 3.0 * h) / square


@numba.njit(nogil=True, cache=True, inline="always")
def _off_the_pole(x, y, z):  # type: ignore[no-untyped-def]
    """Return x and z of a point, moved where it is so near a panorama's pole that it has no longitude."""
    if x * x + z * z < 1e-18 * y * y:
        return 0.0, 1e-9 * abs(y)
    return x, z


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _pixel(model, px, py, pz, K, width, height, limits, jacobian):  # type: ignore[no-untyped-def]
    """Return the pixel of a camera-space point and write the Jacobian `[2, 3]` there."""
    jacobian[:] = 0.0
    if model == PINHOLE:
        tx, ty = pz * _clamped(px / pz, limits[0], limits[1]), pz * _clamped(py / pz, limits[2], limits[3])
        jacobian[0, 0], jacobian[0, 2] = K[0, 0] / pz, -K[0, 0] * tx / (pz * pz)
        jacobian[1, 1], jacobian[1, 2] = K[1, 1] / pz, -K[1, 1] * ty / (pz * pz)
        return float(K[0, 0] * px / pz + K[0, 2]), float(K[1, 1] * py / pz + K[1, 2])
    if model == ORTHO:
        jacobian[0, 0], jacobian[1, 1] = K[0, 0], K[1, 1]
        return float(K[0, 0] * px + K[0, 2]), float(K[1, 1] * py + K[1, 2])
    x, y, z = float(px), float(py), float(pz)  # differences of nearly equal numbers follow
    if model == FISHEYE:
        g, h, _ = _fisheye_series(x, y, z)
        slope = -1.0 / (x * x + y * y + z * z)
        jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = K[0, 0] * (g + x * x * h), K[0, 0] * x * y * h, K[0, 0] * x * slope
        jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = K[1, 1] * x * y * h, K[1, 1] * (g + y * y * h), K[1, 1] * y * slope
        return K[0, 0] * x * g + K[0, 2], K[1, 1] * y * g + K[1, 2]
    across, down, softening = width / (2.0 * math.pi), height / math.pi, (0.5 * math.pi / height) ** 2
    x, z = _off_the_pole(x, y, z)
    square = x * x + y * y + z * z
    flat = math.sqrt(x * x + z * z)
    soft = across / (flat * math.sqrt(flat * flat + softening * square))
    jacobian[0, 0], jacobian[0, 2] = z * soft, -x * soft
    rate = down / (flat * square)
    jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = -x * y * rate, flat * flat * rate, -y * z * rate
    return across * math.atan2(x, z) + 0.5 * width, down * math.atan2(y, flat) + 0.5 * height


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _pinhole_backward(px, py, pz, K, limits, v, vu, vv):  # type: ignore[no-untyped-def]
    """`_pixel_backward` of a pinhole camera: J = [[fx/z, 0, -fx tx/z^2], [0, fy/z, -fy ty/z^2]]."""
    fx, fy = K[0, 0], K[1, 1]
    tx, ty = pz * _clamped(px / pz, limits[0], limits[1]), pz * _clamped(py / pz, limits[2], limits[3])
    vpx, vpy = fx / pz * vu, fy / pz * vv
    vpz = -(fx * px * vu + fy * py * vv + fx * v[0, 0] + fy * v[1, 1]) / (pz * pz)
    if tx == px or limits[0] < px / pz < limits[1]:
        vpx -= fx / (pz * pz) * v[0, 2]
        vpz += 2 * fx * tx / (pz * pz * pz) * v[0, 2]
    else:
        vpz += fx * tx / (pz * pz * pz) * v[0, 2]
    if ty == py or limits[2] < py / pz < limits[3]:
        vpy -= fy / (pz * pz) * v[1, 2]
        vpz += 2 * fy * ty / (pz * pz * pz) * v[1, 2]
    else:
        vpz += fy * ty / (pz * pz * pz) * v[1, 2]
    return float(vpx), float(vpy), float(vpz)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fisheye_backward(x, y, z, K, v, vu, vv):  # type: ignore[no-untyped-def]
    """`_pixel_backward` of a fisheye camera: pixel = (fx x g, fy y g), dg = h (x dx + y dy) + slope dz."""
    fx, fy = float(K[0, 0]), float(K[1, 1])
    g, h, k = _fisheye_series(x, y, z)
    slope = -1.0 / (x * x + y * y + z * z)
    bend = 2.0 * slope * slope
    v00, v11, v02, v12 = fx * v[0, 0], fy * v[1, 1], fx * v[0, 2], fy * v[1, 2]
    mixed = fx * v[0, 1] + fy * v[1, 0]
    vu, vv = fx * vu, fy * vv
    vpx = (g + x * x * h) * vu + x * y * h * vv
    vpx += (3 * x * h + x**3 * k) * v00 + y * (h + x * x * k) * mixed + x * (h + y * y * k) * v11
    vpx += (slope + x * x * bend) * v02 + x * y * bend * v12
    vpy = x * y * h * vu + (g + y * y * h) * vv
    vpy += y * (h + x * x * k) * v00 + x * (h + y * y * k) * mixed + (3 * y * h + y**3 * k) * v11
    vpy += x * y * bend * v02 + (slope + y * y * bend) * v12
    vpz = slope * (x * vu + y * vv)
    vpz += (slope + x * x * bend) * v00 + x * y * bend * mixed + (slope + y * y * bend) * v11 + z * bend * (x * v02 + y * v12)
    return vpx, vpy, vpz


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _equirectangular_backward(x, y, z, width, height, v, vu, vv):  # type: ignore[no-untyped-def]
    """`_pixel_backward` of a panorama, J = [[z s, 0, -x s], [-x y m, f^2 m, -y z m]] with f^2 = x^2 + z^2."""
    across, down, softening = width / (2.0 * math.pi), height / math.pi, (0.5 * math.pi / height) ** 2
    x, z = _off_the_pole(x, y, z)
    square, flat_square = x * x + y * y + z * z, x * x + z * z
    flat, softened = math.sqrt(flat_square), flat_square + softening * square
    soft = across / (flat * math.sqrt(softened))
    fall = 1.0 / flat_square + (1.0 + softening) / softened  # ds = -s (fall (x dx + z dz) + softening y dy / softened)
    v_soft = -soft * (z * v[0, 0] - x * v[0, 2])
    rate = down / (flat * square)
    lean = -rate * (1.0 / flat_square + 2.0 / square)  # dm = lean (x dx + z dz) - 2 m y dy / square
    v_rate = -x * y * v[1, 0] + flat_square * v[1, 1] - y * z * v[1, 2]
    vpx = z * across / flat_square * vu - x * y * rate * vv
    vpx += x * fall * v_soft - soft * v[0, 2] + x * lean * v_rate - y * rate * v[1, 0] + 2 * x * rate * v[1, 1]
    vpy = flat_square * rate * vv + softening * y / softened * v_soft - 2 * y * rate / square * v_rate
    vpy -= rate * (x * v[1, 0] + z * v[1, 2])
    vpz = -x * across / flat_square * vu - y * z * rate * vv
    vpz += z * fall * v_soft + soft * v[0, 0] + z * lean * v_rate - y * rate * v[1, 2] + 2 * z * rate * v[1, 1]
    return vpx, vpy, vpz


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _pixel_backward(model, px, py, pz, K, width, height, limits, v, vu, vv):  # type: ignore[no-untyped-def]
    """Return the gradient by a camera-space point from `v` `[2, 3]` by the Jacobian and `vu`, `vv` by the pixel."""
    if model == PINHOLE:
        return _pinhole_backward(px, py, pz, K, limits, v, vu, vv)
    if model == ORTHO:
        return float(K[0, 0] * vu), float(K[1, 1] * vv), 0.0
    if model == FISHEYE:
        return _fisheye_backward(float(px), float(py), float(pz), K, v, float(vu), float(vv))
    return _equirectangular_backward(float(px), float(py), float(pz), width, height, v, float(vu), float(vv))


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _image_covariance(affine, quats, scales, covars, i, rotation):  # type: ignore[no-untyped-def]
    """Return A S A^T = (xx, xy, yy) of Gaussian i; `covars` replaces quats and scales where it is not empty."""
    xx = xy = yy = 0.0
    if len(covars):
        for j in range(3):
            for k in range(3):
                xx += affine[0, j] * covars[i, j, k] * affine[0, k]
                xy += affine[0, j] * covars[i, j, k] * affine[1, k]
                yy += affine[1, j] * covars[i, j, k] * affine[1, k]
        return xx, xy, yy
    _rotation(quats[i], rotation)
    for k in range(3):
        ux = affine[0, 0] * rotation[0, k] + affine[0, 1] * rotation[1, k] + affine[0, 2] * rotation[2, k]
        uy = affine[1, 0] * rotation[0, k] + affine[1, 1] * rotation[1, k] + affine[1, 2] * rotation[2, k]
        ux, uy = ux * scales[i, k], uy * scales[i, k]
        xx, xy, yy = xx + ux * ux, xy + ux * uy, yy + uy * uy
    return xx, xy, yy


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _project(means, quats, scales, covars, opacities, view, K, settings, start, stop, outputs):  # type: ignore[no-untyped-def]
    """Project Gaussians `start` to `stop` into one camera; what is not seen keeps the zeros of the outputs."""
    means2d, conics, depths, compensations, radii = outputs
    model, width, height, near, far, eps2d, radius_clip, antialiased = settings
    limits = _limits(K, width, height)
    rotation, jacobian, affine = np.empty((3, 3), means.dtype), np.empty((2, 3), means.dtype), np.empty((2, 3), means.dtype)
    for i in range(start, stop):
        px, py, pz = _camera_point(view, means[i])
        depth = math.sqrt(px * px + py * py + pz * pz) if model == EQUIRECTANGULAR else pz
        if not (near <= depth <= far):
            continue
        u, v = _pixel(model, px, py, pz, K, width, height, limits, jacobian)
        for row in range(2):
            for j in range(3):
                affine[row, j] = jacobian[row, 0] * view[0, j] + jacobian[row, 1] * view[1, j] + jacobian[row, 2] * view[2, j]
        xx, xy, yy = _image_covariance(affine, quats, scales, covars, i, rotation)
        determinant_sharp = xx * yy - xy * xy
        xx, yy = xx + eps2d, yy + eps2d
        determinant = xx * yy - xy * xy
        if not 0.0 < determinant < np.inf:
            continue
        compensation = math.sqrt(max(determinant_sharp / determinant, 0.0))
        opacity = opacities[i] * compensation if antialiased else opacities[i]
        if opacity < ALPHA_THRESHOLD:
            continue
        # The smallest box around the pixels in which alpha can reach the threshold (Radl et al. 2024, section B.2).
        extend = min(3.33, math.sqrt(2.0 * math.log(opacity / ALPHA_THRESHOLD)))
        radius_x = math.ceil(min(extend * math.sqrt(xx), RADIUS_MAXIMUM))
        radius_y = math.ceil(min(extend * math.sqrt(yy), RADIUS_MAXIMUM))
        if radius_x <= radius_clip and radius_y <= radius_clip:
            continue
        if u + radius_x <= 0 or u - radius_x >= width or v + radius_y <= 0 or v - radius_y >= height:
            continue
        means2d[i, 0], means2d[i, 1], depths[i], compensations[i] = u, v, depth, compensation
        conics[i, 0], conics[i, 1], conics[i, 2] = yy / determinant, -xy / determinant, xx / determinant
        radii[i, 0], radii[i, 1] = radius_x, radius_y


@numba.njit(nogil=True, cache=True, inline="always")
def _covariance_gradient(conic, v_conic, compensation, v_compensation, eps2d):  # type: ignore[no-untyped-def]
    """Return the gradient (xx, xy, yy) by an image covariance S, the off-diagonal split in two.

    From its inverse X = S^-1: -X G X. From compensation^2 = det S0 / det S with S = S0 + eps I: the derivative of det S0 is
    its adjugate.
    """
    a, b, c = conic[0], conic[1], conic[2]
    ga, gb, gc = v_conic[0], 0.5 * v_conic[1], v_conic[2]
    h00, h01, h10, h11 = a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc
    gxx, gxy, gyy = -(h00 * a + h01 * b), -(h00 * b + h01 * c), -(h10 * b + h11 * c)
    if v_compensation != 0.0 and compensation > 1e-6:
        determinant = 1.0 / (a * c - b * b)
        sharp_xx, sharp_yy, xy = c * determinant - eps2d, a * determinant - eps2d, -b * determinant
        factor, square = 0.5 * v_compensation / compensation, compensation * compensation
        gxx += factor * (sharp_yy / determinant - square * a)
        gxy += factor * (-xy / determinant - square * b)
        gyy += factor * (sharp_xx / determinant - square * c)
    return gxx, gxy, gyy


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _shape_backward(affine, quats, scales, covars, i, gxx, gxy, gyy, scratch, gradients, v_affine):  # type: ignore[no-untyped-def]
    """Add the gradients by the shape of Gaussian i to `gradients`, and write that by the affine map."""
    rotation, v_rotation = scratch
    _, v_quats, v_scales, v_covars = gradients
    v_affine[:] = 0.0
    if len(covars):
        for j in range(3):
            for k in range(3):
                first = gxx * affine[0, k] + gxy * affine[1, k]
                second = gxy * affine[0, k] + gyy * affine[1, k]
                v_covars[i, j, k] += affine[0, j] * first + affine[1, j] * second
                v_affine[0, j] += 2 * first * covars[i, k, j]
                v_affine[1, j] += 2 * second * covars[i, k, j]
        return
    inverse = _rotation(quats[i], rotation)
    for k in range(3):
        ux = affine[0, 0] * rotation[0, k] + affine[0, 1] * rotation[1, k] + affine[0, 2] * rotation[2, k]
        uy = affine[1, 0] * rotation[0, k] + affine[1, 1] * rotation[1, k] + affine[1, 2] * rotation[2, k]
        s = scales[i, k]
        vx, vy = 2 * (gxx * ux + gxy * uy) * s, 2 * (gxy * ux + gyy * uy) * s
        v_scales[i, k] += vx * ux + vy * uy
        vx, vy = vx * s, vy * s
        for j in range(3):
            v_affine[0, j] += vx * rotation[j, k]
            v_affine[1, j] += vy * rotation[j, k]
            v_rotation[j, k] = affine[0, j] * vx + affine[1, j] * vy
    _rotation_backward(quats[i], inverse, v_rotation, v_quats[i])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _project_backward(  # type: ignore[no-untyped-def]
    means, quats, scales, covars, view, K, settings, start, stop, seen, upstream, gradients, v_view
):
    """Add the gradients that one camera gives Gaussians `start` to `stop` to `gradients` and `v_view`."""
    conics, compensations, radii = seen
    v_means2d, v_conics, v_depths, v_compensations = upstream
    model, width, height, _, _, eps2d, _, _ = settings
    v_means = gradients[0]
    limits, dtype = _limits(K, width, height), means.dtype
    scratch = np.empty((3, 3), dtype), np.empty((3, 3), dtype)
    jacobian, v_jacobian = np.empty((2, 3), dtype), np.empty((2, 3), dtype)
    affine, v_affine = np.empty((2, 3), dtype), np.empty((2, 3), dtype)
    for i in range(start, stop):
        if radii[i, 0] <= 0:
            continue
        px, py, pz = _camera_point(view, means[i])
        _pixel(model, px, py, pz, K, width, height, limits, jacobian)
        for row in range(2):
            for j in range(3):
                affine[row, j] = jacobian[row, 0] * view[0, j] + jacobian[row, 1] * view[1, j] + jacobian[row, 2] * view[2, j]
        gxx, gxy, gyy = _covariance_gradient(conics[i], v_conics[i], compensations[i], v_compensations[i], eps2d)
        _shape_backward(affine, quats, scales, covars, i, gxx, gxy, gyy, scratch, gradients, v_affine)
        for row in range(2):
            for k in range(3):
                total = v_affine[row, 0] * view[k, 0] + v_affine[row, 1] * view[k, 1] + v_affine[row, 2] * view[k, 2]
                v_jacobian[row, k] = total
        vpx, vpy, vpz = _pixel_backward(model, px, py, pz, K, width, height, limits, v_jacobian, v_means2d[i, 0], v_means2d[i, 1])
        if model == EQUIRECTANGULAR:
            pull = v_depths[i] / math.sqrt(px * px + py * py + pz * pz)
            vpx, vpy, vpz = vpx + px * pull, vpy + py * pull, vpz + pz * pull
        else:
            vpz += v_depths[i]
        for j in range(3):
            v_means[i, j] += view[0, j] * vpx + view[1, j] * vpy + view[2, j] * vpz
            v_view[0, j] += vpx * means[i, j] + jacobian[0, 0] * v_affine[0, j] + jacobian[1, 0] * v_affine[1, j]
            v_view[1, j] += vpy * means[i, j] + jacobian[0, 1] * v_affine[0, j] + jacobian[1, 1] * v_affine[1, j]
            v_view[2, j] += vpz * means[i, j] + jacobian[0, 2] * v_affine[0, j] + jacobian[1, 2] * v_affine[1, j]
        v_view[0, 3] += vpx
        v_view[1, 3] += vpy
        v_view[2, 3] += vpz


class Project(torch.autograd.Function):
    """Differentiable projection of B moments of N Gaussians into C cameras each."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, covars, opacities, viewmats, Ks, settings: Settings):  # type: ignore[no-untyped-def]
        """Project; the opacities only decide which pixels a Gaussian can reach.

        Args:
            ctx: autograd's context.
            means: `[B, N, 3]`.
            quats: `[B, N, 4]`, or `[B, 0, 4]` where `covars` is given.
            scales: `[B, N, 3]`, or `[B, 0, 3]` where `covars` is given.
            covars: `[B, N, 3, 3]` symmetric, or `[B, 0, 3, 3]`.
            opacities: `[B, N]`.
            viewmats: `[B, C, 4, 4]`.
            Ks: `[B, C, 3, 3]`.
            settings: see `Settings`.

        Returns:
            Pixels `[B, C, N, 2]`, conics `[B, C, N, 3]`, depths and compensations `[B, C, N]`, radii `[B, C, N, 2]` int32.
        """
        arrays = [tensor.detach().contiguous().numpy() for tensor in (means, quats, scales, covars, opacities, viewmats, Ks)]
        *shapes, views, intrinsics = arrays
        cameras, count = views.shape[1], means.shape[1]
        size, chunks = (len(views), cameras, count), -(-count // CHUNK)
        floats = [np.zeros((*size, *rest), arrays[0].dtype) for rest in ((2,), (3,), (), ())]
        outputs = (*floats, np.zeros((*size, 2), np.int32))

        def piece(index: int) -> None:
            image, chunk = divmod(index, chunks)
            b, c = divmod(image, cameras)
            span = (chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            inputs = (*(array[b] for array in shapes), views[b, c], intrinsics[b, c])
            _project(*inputs, tuple(settings), *span, tuple(output[b, c] for output in outputs))  # type: ignore[call-arg]

        map_pieces(piece, len(views) * cameras * chunks)
        ctx.arrays, ctx.outputs, ctx.settings = arrays, outputs, settings
        result = tuple(torch.from_numpy(output) for output in outputs)
        ctx.mark_non_differentiable(result[4])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_means2d, v_conics, v_depths, v_compensations, _):  # type: ignore[no-untyped-def]
        """Return the gradients by means, quats, scales, covars and viewmats."""
        *shapes, _opacities, views, intrinsics = ctx.arrays
        _, conics, _, compensations, radii = ctx.outputs
        upstream = [v.contiguous().numpy() for v in (v_means2d, v_conics, v_depths, v_compensations)]
        gradients = [np.zeros_like(array) for array in shapes]
        cameras, count = views.shape[1], conics.shape[2]
        chunks = -(-count // CHUNK)
        v_views = np.zeros((chunks, *views.shape), views.dtype)

        def piece(index: int) -> None:
            b, chunk = divmod(index, chunks)
            span = (chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            own, totals = [array[b] for array in shapes], tuple(gradient[b] for gradient in gradients)
            for c in range(cameras):
                seen = (conics[b, c], compensations[b, c], radii[b, c])
                given = tuple(v[b, c] for v in upstream)
                inputs = (*own, views[b, c], intrinsics[b, c], tuple(ctx.settings), *span)
                _project_backward(*inputs, seen, given, totals, v_views[chunk, b, c])  # type: ignore[call-arg]

        map_pieces(piece, len(views) * chunks)
        return *(torch.from_numpy(gradient) for gradient in gradients), None, torch.from_numpy(v_views.sum(axis=0)), None, None
