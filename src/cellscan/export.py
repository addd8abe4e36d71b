"""A classifier as a file for other programs: ONNX, or StableHLO, with a script beside it that runs it."""

from __future__ import annotations

import ast
import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import numpy as np

from cellscan.card import Card, to_json
from cellscan.data import images, reading, tiffs
from cellscan.data.values import as_path
from cellscan.errors import ArgumentError, MissingExtraError
from cellscan.tasks.classification import ClassificationTask, Settings
from cellscan.tasks.programs import Members
from cellscan.tensors import write_whole

_HEAD = '''"""Run {file} on images, without cellscan: python {file}.py IMAGE...

Research use only, not a medical device. Needs Pillow, NumPy and {needs}. Images are read as cellscan reads them, by the
code below; both sides are stretched to {size} pixels by Pillow's antialiased bilinear filter. The program takes uint8
(N, {size}, {size}, 3) and returns probabilities (N, {classes}) of {names}.
"""

'''

_TAIL = """

if __name__ == "__main__":
    import sys

{imports}

    images = np.stack([read_rgb(path, {size}) for path in sys.argv[1:]])
    file = Path(__file__).with_suffix("")
{run}
    for path, row in zip(sys.argv[1:], probabilities):
        print(path, *(f"{{name}}={{p:.6f}}" for name, p in zip({names}, row)))
"""

_FUTURE = "from __future__ import annotations\n"

_ERRORS = """

class CellscanError(Exception):
    pass


class ArgumentError(CellscanError, ValueError):
    pass


class DataError(CellscanError, ValueError):
    pass


class ImageError(CellscanError, ValueError):
    pass


class MissingExtraError(CellscanError, ImportError):
    pass


"""

_RUN = {
    ".onnx": (
        "onnxruntime",
        "    import onnxruntime",
        '    probabilities = onnxruntime.InferenceSession(str(file)).run(None, {"images": images})[0]',
    ),
    ".stablehlo": (
        "jax with flatbuffers",
        "    import jax\n    import jax.export",
        "    probabilities = np.asarray(jax.export.deserialize(bytearray(file.read_bytes())).call(images))",
    ),
}
"""What runs a file: package, imports, and the line that does it."""


def export(
    path: str | os.PathLike[str], task: ClassificationTask, members: Members, card: Card, platforms: tuple[str, ...]
) -> None:
    """Write the program, its script, and beside StableHLO its card; each whole or not at all."""
    target = as_path("path", path)
    if target.suffix not in _RUN:
        raise ArgumentError(f"{target}: expected a file whose name ends in {' or '.join(_RUN)}")
    if card.decision.tta:
        warnings.warn(
            f"{target}: temperature and threshold were chosen with test-time augmentation, which the file does not do; "
            "choose them with tta=False before exporting",
            stacklevel=3,
        )
    settings = Settings(np.float32(card.decision.temperature))

    def probabilities(images: jax.Array) -> jax.Array:
        return task.predict(members, settings, images).probabilities

    size = card.image_size
    shape = jax.export.symbolic_shape(f"n, {size}, {size}, 3")
    batch = jax.ShapeDtypeStruct(shape, np.uint8)
    if target.suffix == ".onnx":
        data = _onnx(probabilities, batch, card, target)
    else:
        data = _stablehlo(probabilities, batch, platforms, target)
        write_whole(target.with_name(f"{target.name}.json"), to_json(card).encode())
    write_whole(target, data)
    needs, imports, run = _RUN[target.suffix]
    told = {"file": target.name, "needs": needs, "imports": imports, "run": run, "size": size}
    told |= {"names": card.class_names, "classes": len(card.class_names)}
    script = _HEAD.format(**told) + _decoder() + _TAIL.format(**told)
    write_whole(target.with_name(f"{target.name}.py"), script.encode())


def _decoder() -> str:
    """Return the source of what decodes images: there is one decoder, and a script beside a file has it too."""
    return _FUTURE + _ERRORS + "\n\n".join(map(_without_imports_of_ours, (reading, tiffs, images)))


def _without_imports_of_ours(module: ModuleType) -> str:
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        ours = isinstance(node, ast.ImportFrom) and str(node.module).startswith(("cellscan", "__future__"))
        if ours or node.lineno == 1:  # its docstring
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip() + "\n"


def _stablehlo(
    probabilities: Callable[[jax.Array], jax.Array],
    images: jax.ShapeDtypeStruct,
    platforms: tuple[str, ...],
    target: Path,
) -> bytes:
    program = jax.export.export(jax.jit(probabilities), platforms=platforms)(images)
    try:
        return bytes(program.serialize())
    except ImportError as error:  # JAX does not bring flatbuffers along
        raise MissingExtraError(
            f"{target}: writing StableHLO needs flatbuffers: pip install 'cellscan[export]'"
        ) from error


def _onnx(
    probabilities: Callable[[jax.Array], jax.Array], images: jax.ShapeDtypeStruct, card: Card, target: Path
) -> bytes:
    try:
        import jax2onnx
    except ImportError as error:
        raise MissingExtraError(
            f"{target}: writing ONNX needs jax2onnx: pip install 'cellscan[export]', on Python 3.12 or newer"
        ) from error
    import logging

    quiet = logging.getLogger("onnx_ir.serde")
    before = quiet.level
    quiet.setLevel(logging.ERROR)  # it reports types that no runtime asks for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it traces under flags that JAX warns of
            model = jax2onnx.to_onnx(
                probabilities, [images], model_name="cellscan", input_names=["images"], output_names=["probabilities"]
            )
    finally:
        quiet.setLevel(before)
    entry = model.metadata_props.add()
    entry.key, entry.value = "cellscan", to_json(card)
    return model.SerializeToString()
