import numpy as np
import torch

from stages.reconstruct.optimizer import adam_step


def test_adam_steps_equal_those_of_torch():
    rng = np.random.default_rng(0)
    start = rng.standard_normal((9, 2, 3)).astype(np.float32)
    gradients = rng.standard_normal((5, 9, 2, 3)).astype(np.float32)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    adam = torch.optim.Adam([parameter], lr=0.01, eps=1e-15)
    values, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step, gradient in enumerate(gradients, start=1):
        parameter.grad = torch.from_numpy(gradient)
        adam.step()
        adam_step(values, gradient, first, second, np.full(9, 0.01, np.float32), step)
    np.testing.assert_allclose(values, parameter.detach().numpy(), rtol=1e-5, atol=1e-7)
