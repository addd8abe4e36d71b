"""`small_cnn`: a residual network of 496 thousand parameters that trains from scratch on two CPU cores in minutes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cellscan.models.blocks import lecun_normal, make_linear
from cellscan.models.convolution import conv as quick


def space_to_depth(x: Float[Array, "n h w c"], block: int = 2) -> Float[Array, "n h2 w2 d"]:
    """Move the pixels of each block into channels: (N, H, W, C) -> (N, H / block, W / block, C * block**2).

    Rows and columns that do not fill a block are cut off.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.small_cnn import space_to_depth
    >>> space_to_depth(jnp.zeros((1, 65, 64, 3))).shape
    (1, 32, 32, 12)
    """
    n, h, w, c = x.shape
    h, w = h // block, w // block
    x = x[:, : h * block, : w * block].reshape(n, h, block, w, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, c * block * block)


class InstanceNorm(nnx.Module):
    """Instance normalisation with the results of `flax.nnx.InstanceNorm`, but fewer passes over the image.

    It multiplies each channel by one factor and adds one term. The statistics are computed in float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.small_cnn import InstanceNorm
    >>> norm = InstanceNorm(1, rngs=nnx.Rngs(0))
    >>> norm(jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)).ravel().round(2).tolist()
    [-1.0, 1.0]
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5, rngs: nnx.Rngs) -> None:
        del rngs  # The weights are not random. The argument makes the signature that of flax's class.
        self.scale: nnx.Param[jax.Array] = nnx.Param(jnp.ones(channels))
        self.bias: nnx.Param[jax.Array] = nnx.Param(jnp.zeros(channels))
        self.epsilon: float = epsilon

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Normalise every channel of every image."""
        values = x.astype(jnp.float32)
        mean = values.mean((1, 2), keepdims=True)
        variance = jnp.maximum((values * values).mean((1, 2), keepdims=True) - mean * mean, 0)
        factor = self.scale[...] * jax.lax.rsqrt(variance + self.epsilon)
        return (values * factor + (self.bias[...] - mean * factor)).astype(x.dtype)


class Block(nnx.Module):
    """A residual block of two 3x3 convolutions with instance norm, and a shortcut; the first one has the stride."""

    def __init__(self, channels: int, width: int, *, stride: int, rngs: nnx.Rngs) -> None:
        conv = {
            "padding": "SAME",
            "use_bias": False,
            "conv_general_dilated": quick,
            "kernel_init": lecun_normal,
            "rngs": rngs,
        }
        self.conv1: nnx.Conv = nnx.Conv(channels, width, (3, 3), strides=stride, **conv)
        self.norm1: InstanceNorm = InstanceNorm(width, rngs=rngs)
        self.conv2: nnx.Conv = nnx.Conv(width, width, (3, 3), **conv)
        self.norm2: InstanceNorm = InstanceNorm(width, rngs=rngs)
        same = stride == 1 and channels == width
        self.shortcut: nnx.Conv | None = (
            nnx.data(None) if same else nnx.Conv(channels, width, (1, 1), strides=stride, **conv)
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the block."""
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class SmallCNN(nnx.Module):
    """A small residual network with instance norm, which reduces the influence of illumination and stain.

    It consists of space-to-depth, a stem of 32 channels, residual blocks of 32, 64, 96 and 128 channels, global average
    pooling, and a dense layer. It has no batch statistics, so the result for a cell does not depend on the other cells
    of the batch.

    Parameters
    ----------
    num_classes : int
        Width of the last layer.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.small_cnn import SmallCNN
    >>> net = SmallCNN(2, rngs=nnx.Rngs(0))
    >>> net(jnp.zeros((3, 64, 64, 3))).shape
    (3, 2)
    """

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs) -> None:
        self.stem: nnx.Conv = nnx.Conv(
            12,
            32,
            (3, 3),
            padding="SAME",
            use_bias=False,
            conv_general_dilated=quick,
            kernel_init=lecun_normal,
            rngs=rngs,
        )
        self.stem_norm: InstanceNorm = InstanceNorm(32, rngs=rngs)
        self.stage1: Block = Block(32, 32, stride=1, rngs=rngs)
        self.stage2: Block = Block(32, 64, stride=2, rngs=rngs)
        self.stage3: Block = Block(64, 96, stride=2, rngs=rngs)
        self.stage4: Block = Block(96, 128, stride=1, rngs=rngs)
        self.head: nnx.Linear = make_linear(128, num_classes, rngs=rngs)

    def features(self, x: Float[Array, "n h w 3"]) -> dict[str, Array]:
        """Return the output of every stage by name, and the averaged features as ``pre_logits`` (N, 128)."""
        out = {"stem": jax.nn.relu(self.stem_norm(self.stem(space_to_depth(x))))}
        out["stage1"] = self.stage1(out["stem"])
        out["stage2"] = self.stage2(out["stage1"])
        out["stage3"] = self.stage3(out["stage2"])
        out["stage4"] = self.stage4(out["stage3"])
        out["pre_logits"] = out["stage4"].mean((1, 2))
        return out

    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n k"]:
        """Return the logits of normalised images."""
        return self.classify(self.features(x)["stage4"])

    def classify(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        """Return the logits, computed from the output of the last stage."""
        return self.head(x.mean((1, 2)))


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> SmallCNN:
    """Build a network of this family by name."""
    return SmallCNN(num_classes, rngs=rngs)
