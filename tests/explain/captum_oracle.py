"""What captum answers on a small network: the reference of the three methods.

    PYTHON tests/explain/captum_oracle.py

PYTHON is an interpreter that has torch, captum and cellscan (`pip install -e '.[dev]'` on Python 3.11). It writes
captum.json, which the tests compare with wherever they run.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

REFERENCE = Path(__file__).with_name("captum.json")
SIDE = 16
LABEL = 1


def kernels() -> dict[str, np.ndarray]:
    """Draw the weights, in JAX's layout."""
    rng = np.random.default_rng(0)
    shapes = {"first": (3, 3, 3, 6), "second": (3, 3, 6, 8), "head": (8, 2)}
    return {name: 0.4 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def images() -> np.ndarray:
    """Return two images (2, S, S, 3) uint8."""
    return np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


class SmallNet(nnx.Module):
    """Two convolutions, an average and a dense layer."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 6, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, rngs=rngs)
        self.second = nnx.Conv(6, 8, (3, 3), strides=2, padding=((1, 1), (1, 1)), use_bias=False, rngs=rngs)
        self.head = nnx.Linear(8, 2, use_bias=False, rngs=rngs)
        for name, kernel in kernels().items():
            getattr(self, name).kernel.set_value(jnp.asarray(kernel))

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        first = jax.nn.relu(self.first(x))
        return {"first": first, "second": jax.nn.relu(self.second(first))}

    def classify(self, x: jax.Array) -> jax.Array:
        return self.head(x.mean((1, 2)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classify(self.features(x)["second"])


def answers() -> dict[str, list]:
    """Return what captum says of every method: two maps (S, S)."""
    import torch
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 6, 3, padding=1, bias=False)
            self.second = torch.nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
            self.last = torch.nn.ReLU()
            self.head = torch.nn.Linear(8, 2, bias=False)
            with torch.no_grad():
                for name, kernel in kernels().items():
                    turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
                    getattr(self, name).weight.copy_(torch.from_numpy(turned.copy()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.last(self.second(torch.relu(self.first(x)))).mean((2, 3)))

    net = Plain().eval()
    x = torch.from_numpy((images().astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2).copy())
    ground = x.mean((2, 3), keepdim=True).expand_as(x).contiguous()
    cam = LayerGradCam(net, net.last).attribute(x, target=LABEL, relu_attributions=True)
    path = IntegratedGradients(net).attribute(x, baselines=ground, target=LABEL, n_steps=128, method="gausslegendre")
    hidden = Occlusion(net).attribute(
        x, sliding_window_shapes=(3, SIDE // 8, SIDE // 8), strides=(3, SIDE // 16, SIDE // 16), baselines=ground,
        target=LABEL,
    )  # fmt: skip
    found = {
        "gradcam": LayerAttribution.interpolate(cam, (SIDE, SIDE), "bilinear")[:, 0],
        "integrated_gradients": path.sum(1),
        "occlusion": hidden[:, 0],
    }
    return {name: np.round(maps.detach().numpy().astype(np.float64), 7).tolist() for name, maps in found.items()}


if __name__ == "__main__":
    REFERENCE.write_text(json.dumps(answers()))
