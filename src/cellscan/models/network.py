"""A module taken apart into plain dictionaries of arrays, and the pure functions that use them."""

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
"""``{"params": ..., "stats": ...}``; stats are what is neither parameter nor random state, mostly batch statistics."""


class Network:
    """A `flax.nnx.Module` as pure functions over its weights, which it does not hold.

    The module is cloned: what is done here never changes it. Training and evaluation mode are two
    graphs, both made once. Networks of equal graphs are equal and have one hash, so that JAX compiles for all of
    them once; where an attribute of somebody's own module has no hash, a network equals itself alone.

    Parameters
    ----------
    module : flax.nnx.Module
        Any.
    freeze : str or sequence of str, optional
        Patterns of the parts that training leaves alone: they run in evaluation mode. See `cellscan.Recipe`.
    remat : bool
        Compute the inside of a stage again on the way back, instead of keeping it.
    parts : tuple of str
        The attributes that have parameters, from the input to the head; left out, the order in which they
        were made.
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
                raise ArgumentError(f"{self.name} has no stages that could be computed again; leave remat out")
            setattr(module, "remat", True)  # noqa: B010 - not every module has it
        self._train_graph, *_ = _split(module)
        module.eval()
        self._eval_graph, *states = _split(module)
        # Shapes alone: what JAX has compiled for a network is kept as long as the process, weights must not be.
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
        self._identify()  # texts have another hash in every process

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Network) and self._identity is not None and self._identity == other._identity

    def __hash__(self) -> int:
        return self._hash

    @property
    def head_alone(self) -> bool:
        """Whether nothing but the head is trained."""
        return self.frozen == set(self.parts) - {"head"}

    def variant(self, *, freeze: str | Sequence[str] | None, remat: bool) -> Network:
        """Return the same network, to be trained in another way; itself where there is no other way."""
        if freeze is None and not remat:
            return self
        states = (nnx.from_flat_state(list(state.items())) for state in (self._params, self._rngs, self._stats))
        return Network(nnx.merge(self._eval_graph, *states), freeze=freeze, remat=remat, parts=self.parts)

    def shapes(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """Return shape and dtype of every array of `Weights`."""
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
        """Return the parameters that training changes, and those that are frozen."""
        parts: tuple[Arrays, Arrays] = ({}, {})
        for name, leaf in params.items():
            parts[name.split(".")[0] in self.frozen][name] = leaf
        return parts

    def train(self, params: Arrays, stats: Arrays, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Arrays]:
        """Return logits in training mode, and the statistics after it; all randomness comes from `key`."""
        module = self._merge(self._train_graph, params, stats, key)
        logits = module(x)
        _, _, _, changed = _split(module)
        after = dict(nnx.to_flat_state(changed))
        return logits, {_dotted(path): after[path][...] for path in self._stats}

    def module(self, weights: Weights) -> Any:
        """Return a module in evaluation mode with these weights; where it draws, it draws the same every time."""
        return self._merge(self._eval_graph, weights["params"], weights["stats"], jax.random.key(0))

    def logits(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return logits in evaluation mode."""
        return self.module(weights)(x)

    def embedding(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return the features before the head, (N, D)."""
        features = self.features(weights, x)
        if "pre_logits" not in features:
            raise ArgumentError(
                f"{self.name} has no method features(x) that returns a dictionary with 'pre_logits' (N, D); "
                "add one to embed"
            )
        return features["pre_logits"]

    def features(self, weights: Weights, x: jax.Array) -> dict[str, jax.Array]:
        """Return the features by name, each once and in their order; none where the module gives none."""
        module = self.module(weights)
        found = module.features(x) if hasattr(module, "features") else None
        if not isinstance(found, dict):
            return {}
        return {name: feature for name, feature in found.items() if not name.startswith("stride")}

    def feature_statistics(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return what images are like, (N, D): signed roots of colours and of the mean of every stage but the last.

        Roots, since activations have long tails. The last stage knows what tells classes apart, and little else in a
        fine-tuned network; it counts where it is the only one. Without stages, features that have no place do.
        """
        found = self.features(weights, x)
        stages = [feature.mean((1, 2)) for feature in found.values() if feature.ndim == 4]
        parts = stages[:-1] or stages or [feature for feature in found.values() if feature.ndim == 2]
        if not parts:
            raise ArgumentError(
                f"{self.name} has no method features(x) that returns a dictionary of features; add one to tell what is "
                "novel"
            )
        values = jax.numpy.concatenate([x.mean((1, 2)), x.std((1, 2)), *parts], axis=-1).astype(jax.numpy.float32)
        return jax.numpy.sign(values) * jax.numpy.sqrt(jax.numpy.abs(values))

    def last_map(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return the last features that have a place in the image, (N, h, w, C)."""
        module = self.module(weights)
        maps = [feature for feature in self.features(weights, x).values() if feature.ndim == 4]
        if not maps or not hasattr(module, "classify"):
            raise ArgumentError(
                f'{self.name} has no last spatial features, which "gradcam" asks for: methods features(x), with an '
                "(N, h, w, C) array in its dictionary, and classify(of that), which gives logits. Methods "
                '"integrated_gradients" and "occlusion" need neither'
            )
        return maps[-1]

    def classify(self, weights: Weights, maps: jax.Array) -> jax.Array:
        """Return the logits that belong to the last features that have a place."""
        return self.module(weights).classify(maps)

    def stages(self, weights: Weights, size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every named stage for one image, without computing it; empty where there are none."""
        x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        order: list[str] = []  # eval_shape sorts a dictionary

        def named(weights: Weights, x: jax.Array) -> dict[str, jax.Array]:
            features = self.features(weights, x)
            order.extend(features)
            return features

        shapes = jax.eval_shape(named, weights, x)
        return {name: shapes[name].shape for name in order}

    def check_logits(self, weights: Weights, size: int, classes: int) -> None:
        """Raise `ArgumentError` unless one image of this size gives (1, classes) logits."""
        x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        try:
            out = jax.eval_shape(self.logits, weights, x)
        except Exception as error:  # somebody's own network may raise anything
            raise ArgumentError(
                f"{self.name} cannot take an image of shape (1, {size}, {size}, 3): {type(error).__name__}: {error}"
            ) from error
        if getattr(out, "shape", None) != (1, classes):
            raise ArgumentError(
                f"{self.name} gives {getattr(out, 'shape', out)} for one image; "
                f"expected logits of shape (1, {classes}), one a class"
            )

    def fill(self, members: int, tensors: dict[str, np.ndarray], path: str) -> tuple[Weights, ...]:
        """Put tensors into members, halves widened to float32, and gather everything that does not fit in one error."""
        template = self.shapes()
        wanted = {
            f"{number}.{kind}.{name}": (number, kind, name, leaf)
            for number in range(members)
            for kind, leaves in template.items()
            for name, leaf in leaves.items()
        }
        wrong = [f"missing {name}" for name in wanted if name not in tensors]
        wrong += [f"unknown {name}" for name in tensors if name not in wanted]
        filled: list[Weights] = [{kind: {} for kind in template} for _ in range(members)]
        for full, (number, kind, name, leaf) in wanted.items():
            tensor = tensors.get(full)
            if tensor is None:
                continue
            if tensor.dtype == np.float16 and leaf.dtype == np.float32:
                tensor = tensor.astype(np.float32)
            if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
                wrong.append(f"{full} is {tensor.dtype} {tensor.shape}, expected {leaf.dtype} {leaf.shape}")
            else:
                filled[number][kind][name] = jax.numpy.asarray(tensor)
            if not np.isfinite(tensor).all():
                wrong.append(f"{full} holds values that are not finite")
        if wrong:
            raise ModelFileError(f"{path}: the tensors do not fit the network:\n  " + "\n  ".join(wrong[:20]))
        return tuple(filled)


def weights_of(module: nnx.Module) -> Weights:
    """Return a copy of the weights of a module, as a `Network` of it takes them."""
    _, params, _, stats = _split(module)
    return jax.tree.map(jax.numpy.array, _by_path(*(dict(nnx.to_flat_state(state)) for state in (params, stats))))


def _split(module: nnx.Module) -> Any:
    """Return the graph, the parameters, the random state, and what is neither."""
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _by_path(params: dict[Any, Any], stats: dict[Any, Any]) -> dict[str, Any]:
    states = (("params", params), ("stats", stats))
    return {kind: {_dotted(path): _value(var) for path, var in state.items()} for kind, state in states}


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _value(var: Any) -> Any:
    return var.get_value() if isinstance(var, nnx.Variable) else var


def _filled(var: Any, value: jax.Array) -> Any:
    """Return a variable with a value; an array that is an attribute of its own is no variable."""
    return var.replace(value) if isinstance(var, nnx.Variable) else value


def _parts(module: nnx.Module) -> tuple[str, ...]:
    """Return the names of the attributes that have parameters, in the order in which they were made."""
    held = {str(path[0]) for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))}
    return tuple(name for name in vars(module) if name in held)


def _match(freeze: str | Sequence[str] | None, parts: tuple[str, ...], name: str) -> frozenset[str]:
    """Return the parts that the patterns name."""
    found: set[str] = set()
    for pattern in () if freeze is None else (freeze,) if isinstance(freeze, str) else freeze:
        matched = [p for p in parts if (p != "head" if pattern == "backbone" else fnmatch.fnmatchcase(p, pattern))]
        if not matched or (pattern == "backbone" and "head" not in parts):
            raise ArgumentError(
                f'freeze {pattern!r} matches no part of {name}; it has {", ".join(parts)}, and "backbone" is all but a '
                'part named "head"'
            )
        found |= set(matched)
    if found and found == set(parts):
        raise ArgumentError(f"freeze {freeze!r} leaves nothing of {name} to train; it has {', '.join(parts)}")
    return frozenset(found)


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
