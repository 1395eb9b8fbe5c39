"""The kernels cut an image into tiles and pieces; what lies beyond its border must not count."""

import numpy as np
import torch

from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, rasterize


def gradients(width: int, weights: torch.Tensor) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    count = 400
    means = np.concatenate([rng.uniform([-0.5, -8, 0], [0.5, 8, 1], (count, 3))])
    arrays = {
        "means": means,
        "scales": rng.uniform(0.02, 0.1, (count, 3)),
        "opacities": rng.uniform(0.2, 0.9, count),
        "colors": rng.uniform(0, 1, (count, 3)),
    }
    leaves = {name: torch.tensor(array, dtype=torch.float32, requires_grad=True) for name, array in arrays.items()}
    pose = np.eye(4)
    pose[2, 3] = 4.0
    camera = Cameras.single(pose, np.array([[300.0, 0, 40], [0, 300.0, 600], [0, 0, 1]]), width, 1200)
    image = rasterize(Gaussians(quats=torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4), **leaves), camera).colors[0]
    (image[:, :80] * weights).sum().backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def test_gradients_do_not_depend_on_whether_the_last_tile_is_whole():
    weights = torch.from_numpy(np.random.default_rng(1).standard_normal((1200, 80, 3)).astype(np.float32))
    cut, whole = gradients(80, weights), gradients(128, weights)
    for name, gradient in whole.items():
        np.testing.assert_allclose(cut[name], gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max(), err_msg=name)
