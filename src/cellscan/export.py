"""Export of a classifier for other programs: an ONNX or StableHLO file, and a script that runs it."""

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
from cellscan.errors import ArgumentError, MissingExtraError, import_extra
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
"""For each file type, the package, the imports and the line of code that run it."""


def export(
    path: str | os.PathLike[str], task: ClassificationTask, members: Members, card: Card, platforms: tuple[str, ...]
) -> None:
    """Write the program, the script that runs it, and for StableHLO also the card; each file is written atomically."""
    target = as_path("path", path)
    if target.suffix not in _RUN:
        raise ArgumentError(f"{target}: expected a file whose name ends in {' or '.join(_RUN)}")
    if card.decision.tta:
        warnings.warn(
            f"{target}: temperature and threshold were chosen with test-time augmentation, which the exported file "
            "does not apply; choose them with tta=False before exporting",
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
    values = {"file": target.name, "needs": needs, "imports": imports, "run": run, "size": size}
    values |= {"names": card.class_names, "classes": len(card.class_names)}
    script = _HEAD.format(**values) + _decoder() + _TAIL.format(**values)
    write_whole(target.with_name(f"{target.name}.py"), script.encode())


def _decoder() -> str:
    """Return the source code of the image decoder, so that the script decodes images exactly as the library does."""
    return _FUTURE + _ERRORS + "\n\n".join(map(_without_imports_of_ours, (reading, tiffs, images)))


def _without_imports_of_ours(module: ModuleType) -> str:
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        ours = isinstance(node, ast.ImportFrom) and str(node.module).startswith(("cellscan", "__future__"))
        if ours or node.lineno == 1:  # the docstring of the module
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
    except ImportError as error:  # JAX does not install flatbuffers
        raise MissingExtraError(
            f"{target}: writing StableHLO needs flatbuffers: pip install 'cellscan[export]'"
        ) from error


def _onnx(
    probabilities: Callable[[jax.Array], jax.Array], images: jax.ShapeDtypeStruct, card: Card, target: Path
) -> bytes:
    jax2onnx = import_extra("jax2onnx", "export", f"{target}: writing ONNX", ", on Python 3.12 or newer")
    import logging

    quiet = logging.getLogger("onnx_ir.serde")
    before = quiet.level
    quiet.setLevel(logging.ERROR)  # it warns about types that no runtime uses
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jax2onnx sets flags that make JAX warn
            model = jax2onnx.to_onnx(
                probabilities, [images], model_name="cellscan", input_names=["images"], output_names=["probabilities"]
            )
    finally:
        quiet.setLevel(before)
    entry = model.metadata_props.add()
    entry.key, entry.value = "cellscan", to_json(card)
    return model.SerializeToString()
