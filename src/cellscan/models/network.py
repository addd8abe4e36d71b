"""Separates a module into plain dictionaries of arrays and pure functions of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx

from cellscan.errors import ArgumentError, ModelFileError
from cellscan.process import use_jax

Arrays: TypeAlias = dict[str, jax.Array]
"""Arrays by dotted path, such as ``stage1.conv1.kernel``."""


Weights: TypeAlias = dict[str, Arrays]
"""``{"params": ..., "stats": ...}``. The stats are all arrays other than parameters and random state, mostly batch
statistics."""


class Network:
    """A `flax.nnx.Module` as pure functions of its weights; the network does not store the weights.

    The module is cloned and never changed. It has two graphs, one for training and one for evaluation mode, both
    created once. Networks with equal graphs are equal and have the same hash, so JAX compiles only once for all of
    them. If an attribute of a user's module has no hash, the network equals only itself.

    Parameters
    ----------
    module : flax.nnx.Module
        Any module.
    freeze : str or sequence of str, optional
        Patterns of the frozen parts: training does not change them, and they run in evaluation mode. See
        `cellscan.Recipe`.
    remat : bool
        Recompute the activations inside a stage in the backward pass instead of storing them.
    parts : tuple of str
        The attributes that have parameters, from the input to the head. If omitted, they are in the order in which the
        module created them.
    """

    def __init__(
        self,
        module: nnx.Module,
        *,
        freeze: str | Sequence[str] | None = None,
        remat: bool = False,
        parts: tuple[str, ...] = (),
    ) -> None:
        if not isinstance(module, nnx.Module):
            raise ArgumentError(f"expected the name of a network or a flax.nnx.Module, got {type(module).__name__}")
        use_jax()
        self.name: str = type(module).__name__
        self.parts: tuple[str, ...] = parts or _parts(module)
        module = nnx.clone(module)
        module.train()
        self.frozen: frozenset[str] = _match(freeze, self.parts, self.name)
        for part in self.frozen:
            inside = getattr(module, part)
            if isinstance(inside, nnx.Module):
                inside.eval()
        if remat:
            if not hasattr(module, "remat"):
                raise ArgumentError(f"{self.name} has no stages that can be recomputed; leave out remat")
            setattr(module, "remat", True)  # noqa: B010 - not every module has this attribute
        self._train_graph, *_ = _split(module)
        module.eval()
        self._eval_graph, *states = _split(module)
        # Only shapes are stored: JAX's program cache keeps networks until the process ends; it must not keep weights.
        shapes = [jax.tree.map(_shape, state) for state in states]
        self._params, self._rngs, self._stats = (dict(nnx.to_flat_state(state)) for state in shapes)
        self._identify()

    def _identify(self) -> None:
        self._identity: Any = (self._train_graph, self._eval_graph, self.parts, self.frozen)
        try:
            self._hash: int = hash(self._identity)
        except TypeError:
            self._identity, self._hash = None, object.__hash__(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._identify()  # The hash of a string differs between processes.

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Network) and self._identity is not None and self._identity == other._identity

    def __hash__(self) -> int:
        return self._hash

    @property
    def head_alone(self) -> bool:
        """True if training changes the head only."""
        return self.frozen == set(self.parts) - {"head"}

    def variant(self, *, freeze: str | Sequence[str] | None, remat: bool) -> Network:
        """Return the network with other settings for training; the same object if there are none."""
        if freeze is None and not remat:
            return self
        states = (nnx.from_flat_state(list(state.items())) for state in (self._params, self._rngs, self._stats))
        return Network(nnx.merge(self._eval_graph, *states), freeze=freeze, remat=remat, parts=self.parts)

    def shapes(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """Return the shape and the dtype of every array of `Weights`."""
        return _by_path(self._params, self._stats)

    def _merge(self, graph: Any, params: Arrays, stats: Arrays, key: jax.Array) -> Any:
        states = [
            nnx.from_flat_state([(path, _filled(var, given[_dotted(path)])) for path, var in template.items()])
            for template, given in ((self._params, params), (self._stats, stats))
        ]
        rngs = []
        for number, (path, var) in enumerate(self._rngs.items()):
            shape = var.get_value()
            is_key = jax.numpy.issubdtype(shape.dtype, jax.dtypes.prng_key)
            rngs.append((path, var.replace(jax.random.fold_in(key, number) if is_key else jax.numpy.zeros_like(shape))))
        return nnx.merge(graph, states[0], nnx.from_flat_state(rngs), states[1])

    def divide(self, params: Arrays) -> tuple[Arrays, Arrays]:
        """Divide parameters into those that training changes and those that are frozen."""
        parts: tuple[Arrays, Arrays] = ({}, {})
        for name, leaf in params.items():
            parts[name.split(".")[0] in self.frozen][name] = leaf
        return parts

    def train(self, params: Arrays, stats: Arrays, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Arrays]:
        """Return the logits in training mode and the updated statistics; `key` is the source of all randomness."""
        module = self._merge(self._train_graph, params, stats, key)
        logits = module(x)
        _, _, _, changed = _split(module)
        updated = dict(nnx.to_flat_state(changed))
        return logits, {_dotted(path): updated[path][...] for path in self._stats}

    def module(self, weights: Weights) -> Any:
        """Return a module in evaluation mode with these weights; its random numbers are the same at every call."""
        return self._merge(self._eval_graph, weights["params"], weights["stats"], jax.random.key(0))

    def logits(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return the logits in evaluation mode."""
        return self.module(weights)(x)

    def embedding(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return the input of the head, (N, D)."""
        features = self.features(weights, x)
        if "pre_logits" not in features:
            raise ArgumentError(
                f"{self.name} has no method features(x) that returns a dictionary with 'pre_logits' (N, D); "
                "add this method to compute embeddings"
            )
        return features["pre_logits"]

    def features(self, weights: Weights, x: jax.Array) -> dict[str, jax.Array]:
        """Return the features by name, in order and without aliases; empty if the module has no features."""
        module = self.module(weights)
        features = module.features(x) if hasattr(module, "features") else None
        if not isinstance(features, dict):
            return {}
        return {name: feature for name, feature in features.items() if not name.startswith("stride")}

    def feature_statistics(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return numbers that describe images for the novelty, (N, D).

        The numbers are the signed square roots of the means and standard deviations of the colours, and of the mean
        features of every stage but the last. The roots reduce the long tails of activations. The last stage is left
        out, because in a fine-tuned network it contains little except the differences between classes; it is used if it
        is the only one. Without stages, the features without spatial axes are used.
        """
        features = self.features(weights, x)
        stages = [feature.mean((1, 2)) for feature in features.values() if feature.ndim == 4]
        parts = stages[:-1] or stages or [feature for feature in features.values() if feature.ndim == 2]
        if not parts:
            raise ArgumentError(
                f"{self.name} has no method features(x) that returns a dictionary of features; add this method to "
                "compute the novelty"
            )
        values = jax.numpy.concatenate([x.mean((1, 2)), x.std((1, 2)), *parts], axis=-1).astype(jax.numpy.float32)
        return jax.numpy.sign(values) * jax.numpy.sqrt(jax.numpy.abs(values))

    def last_map(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return the last features with spatial axes, (N, h, w, C)."""
        module = self.module(weights)
        maps = [feature for feature in self.features(weights, x).values() if feature.ndim == 4]
        if not maps or not hasattr(module, "classify"):
            raise ArgumentError(
                f'{self.name} has no last spatial features, which "gradcam" needs. Add a method features(x) that '
                "returns a dictionary with an (N, h, w, C) array, and a method classify(array) that returns the "
                'logits, or choose "integrated_gradients" or "occlusion", which need neither'
            )
        return maps[-1]

    def classify(self, weights: Weights, maps: jax.Array) -> jax.Array:
        """Return the logits, computed from the last features with spatial axes."""
        return self.module(weights).classify(maps)

    def stages(self, weights: Weights, size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every named stage for one image, without computing it; empty if there are no stages."""
        x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        order: list[str] = []  # The list keeps the order, because eval_shape sorts dictionaries.

        def named(weights: Weights, x: jax.Array) -> dict[str, jax.Array]:
            features = self.features(weights, x)
            order.extend(features)
            return features

        shapes = jax.eval_shape(named, weights, x)
        return {name: shapes[name].shape for name in order}

    def check_logits(self, weights: Weights, size: int, classes: int) -> None:
        """Raise `ArgumentError` unless the network returns (1, classes) logits for one image of this size."""
        x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        try:
            out = jax.eval_shape(self.logits, weights, x)
        except Exception as error:  # A user's network may raise any error.
            raise ArgumentError(
                f"{self.name} cannot take an image of shape (1, {size}, {size}, 3): {type(error).__name__}: {error}"
            ) from error
        if getattr(out, "shape", None) != (1, classes):
            raise ArgumentError(
                f"{self.name} returns {getattr(out, 'shape', out)} for one image; "
                f"expected logits of shape (1, {classes}), one for each class"
            )

    def fill(self, members: int, tensors: dict[str, np.ndarray], path: str) -> tuple[Weights, ...]:
        """Return the weights of the members from the tensors of a file, with float16 converted to float32.

        All tensors that do not fit the network are reported in one `ModelFileError`.
        """
        template = self.shapes()
        expected = {
            f"{number}.{kind}.{name}": (number, kind, name, leaf)
            for number in range(members)
            for kind, leaves in template.items()
            for name, leaf in leaves.items()
        }
        wrong = [f"missing {name}" for name in expected if name not in tensors]
        wrong += [f"unknown {name}" for name in tensors if name not in expected]
        filled: list[Weights] = [{kind: {} for kind in template} for _ in range(members)]
        for full_name, (number, kind, name, leaf) in expected.items():
            tensor = tensors.get(full_name)
            if tensor is None:
                continue
            if tensor.dtype == np.float16 and leaf.dtype == np.float32:
                tensor = tensor.astype(np.float32)
            if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
                wrong.append(f"{full_name} is {tensor.dtype} {tensor.shape}, expected {leaf.dtype} {leaf.shape}")
            else:
                filled[number][kind][name] = jax.numpy.asarray(tensor)
            if not np.isfinite(tensor).all():
                wrong.append(f"{full_name} has values that are not finite")
        if wrong:
            raise ModelFileError(f"{path}: the tensors do not fit the network:\n  " + "\n  ".join(wrong[:20]))
        return tuple(filled)


def weights_of(module: nnx.Module) -> Weights:
    """Return a copy of the weights of a module, for the methods of its `Network`."""
    _, params, _, stats = _split(module)
    return jax.tree.map(jax.numpy.array, _by_path(*(dict(nnx.to_flat_state(state)) for state in (params, stats))))


def _split(module: nnx.Module) -> Any:
    """Return the graph, the parameters, the random state, and all other state."""
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _by_path(params: dict[Any, Any], stats: dict[Any, Any]) -> dict[str, Any]:
    states = (("params", params), ("stats", stats))
    return {kind: {_dotted(path): _value(var) for path, var in state.items()} for kind, state in states}


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _value(var: Any) -> Any:
    return var.get_value() if isinstance(var, nnx.Variable) else var


def _filled(var: Any, value: jax.Array) -> Any:
    """Return a variable with a new value; an attribute that is a plain array is replaced by the value."""
    return var.replace(value) if isinstance(var, nnx.Variable) else value


def _parts(module: nnx.Module) -> tuple[str, ...]:
    """Return the names of the attributes that have parameters, in the order in which they were created."""
    names = {str(path[0]) for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))}
    return tuple(name for name in vars(module) if name in names)


def _match(freeze: str | Sequence[str] | None, parts: tuple[str, ...], name: str) -> frozenset[str]:
    """Return the parts that match the patterns."""
    frozen: set[str] = set()
    for pattern in () if freeze is None else (freeze,) if isinstance(freeze, str) else freeze:
        matched = [p for p in parts if (p != "head" if pattern == "backbone" else fnmatch.fnmatchcase(p, pattern))]
        if not matched or (pattern == "backbone" and "head" not in parts):
            raise ArgumentError(
                f'freeze {pattern!r} matches no part of {name}; it has {", ".join(parts)}, and "backbone" means all '
                'parts except one named "head"'
            )
        frozen |= set(matched)
    if frozen and frozen == set(parts):
        raise ArgumentError(
            f"freeze {freeze!r} matches all parts of {name}, so nothing is trained; it has {', '.join(parts)}"
        )
    return frozenset(frozen)


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
