"""One device, several, several processes; streamed or resident: always the same losses."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import TinyNet, compilations, devices_of, run_python, tiny_cells

import cellscan
from cellscan.models.network import Network, Weights, weights_of
from cellscan.tasks.classification import ClassificationTask
from cellscan.tasks.programs import trained_by
from cellscan.training.devices import Examples, make_epoch
from cellscan.training.step import begin

TESTS = Path(__file__).parents[1]
TRAIN = """
import jax, json, optax
from flax import nnx
from helpers import TinyNet, tiny_cells
import cellscan
from cellscan.training import loop
if {resident}:
    real = loop.make_epoch
    loop.make_epoch = lambda *args, **options: real(*args, **options, resident=True)
clf = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
cells, recipe = tiny_cells(32, 16), cellscan.Recipe(optimizer=optax.sgd(0.1))
history = clf.fit(cells, validation=cells, epochs=2, batch_size=8, recipe=recipe, progress=False, {options})
print(json.dumps({{"devices": jax.device_count(), "loss": history["loss"], "validation": history["validation_loss"]}}))
"""


def train(*, resident: bool = False, options: str = "", devices: int = 1) -> dict:
    return json.loads(
        run_python(
            TRAIN.format(resident=resident, options=options),
            cwd=TESTS,
            env=devices_of(devices),
        )
    )


def tiny_task(recipe: cellscan.Recipe) -> tuple[ClassificationTask, Weights]:
    net = TinyNet(rngs=nnx.Rngs(0))
    return trained_by(ClassificationTask(Network(net)), recipe), weights_of(net)


@pytest.fixture(scope="module")
def alone() -> dict:
    return train()


@pytest.mark.parametrize("resident", [False, True])
def test_the_second_epoch_is_not_compiled_anew(resident) -> None:
    cells, task, weights = tiny_cells(24, 16), *tiny_task(cellscan.Recipe())
    run = make_epoch(task, Examples(cells.images(16), cells.labels), 8, resident=resident)
    order, key, rates = np.arange(24), jax.random.key(0), np.full(3, 1e-3, np.float32)
    state, _ = run(begin(task, weights), order, key, rates, lambda images, loss: None)
    with compilations() as names:
        run(state, order, key, rates, lambda images, loss: None)
    assert names == []


def test_sets_of_nearly_one_size_share_the_program_of_an_epoch() -> None:
    task, weights = tiny_task(cellscan.Recipe())
    key = jax.random.key(0)

    def epoch(count: int) -> None:
        cells = tiny_cells(count, 16)
        steps = -(-count // 8)
        run = make_epoch(task, Examples(cells.images(16), cells.labels), 8, resident=True)
        _, metrics = run(
            begin(task, weights), np.resize(np.arange(count), 8 * steps), key, np.full(steps, 1e-3, np.float32),
            lambda images, loss: None,
        )  # fmt: skip
        assert metrics["loss"].shape == (steps,)

    epoch(256)
    with compilations() as names:
        epoch(250)
        epoch(230)
    assert "epoch" not in names


def test_resident_and_streamed_take_the_same_steps() -> None:
    cells = tiny_cells(24, 16)
    examples = Examples(cells.images(16), cells.labels)
    task, weights = tiny_task(cellscan.Recipe(optimizer=optax.sgd(0.1), mixup=0.2))
    results = []
    for resident in (False, True):
        run, ticks = make_epoch(task, examples, 8, resident=resident), list[int]()
        state = begin(task, weights)
        order = np.random.default_rng(0).permutation(24)
        state, metrics = run(
            state, order, jax.random.key(0), np.zeros(3, np.float32), lambda images, _, done=ticks: done.append(images)
        )
        assert sum(ticks) == 24
        assert metrics["loss"].shape == (3,)
        results.append((metrics, state))
    assert np.allclose(results[0][0]["loss"], results[1][0]["loss"], rtol=1e-5)
    close = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-5), results[0][1].params, results[1][1].params)
    assert jax.tree.all(close)


@pytest.mark.parametrize(("devices", "resident"), [(2, False), (4, True)])
def test_several_devices_share_a_batch_and_give_the_losses_of_one(alone, devices, resident) -> None:
    shared = train(devices=devices, resident=resident)
    assert shared["devices"] == devices
    assert np.allclose(shared["loss"], alone["loss"], rtol=1e-4)
    assert np.allclose(shared["validation"], alone["validation"], rtol=1e-3)


def test_a_batch_that_cannot_be_shared_is_an_error() -> None:
    said = run_python(
        "from helpers import tiny_cells\nimport cellscan, jax\n"
        "try: cellscan.Classifier(image_size=16).fit(tiny_cells(), batch_size=8, epochs=1)\n"
        "except cellscan.ArgumentError as error: print(error)\n"
        "with jax.default_device(jax.devices()[1]):\n"
        "    print(cellscan.Classifier(image_size=16).fit(tiny_cells(), batch_size=8, epochs=1, progress=False))",
        cwd=TESTS,
        env=devices_of(3),
    )
    assert "expected a multiple of 3" in said
    assert said.splitlines()[-1].startswith("epoch   1 of 1")  # one of them alone can


def test_two_processes_train_as_one(alone, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    join = f"import jax; jax.distributed.initialize({address!r}, num_processes=2, process_id={{number}})\n"
    options = f"checkpoint={str(tmp_path / 'run')!r}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", join.format(number=number) + TRAIN.format(resident=False, options=options)],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for child in children:
        out, error = child.communicate(timeout=600)
        assert child.returncode == 0, error
        parallel = json.loads(out.strip().splitlines()[-1])
        assert parallel["devices"] == 2
        assert np.allclose(parallel["loss"], alone["loss"], rtol=1e-4)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    resumed = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
    cells, recipe = tiny_cells(32, 16), cellscan.Recipe(optimizer=optax.sgd(0.1))
    options = {"recipe": recipe, "epochs": 2, "batch_size": 8, "progress": False}  # on one device, what two wrote
    history = resumed.fit(cells, validation=cells, checkpoint=tmp_path / "run", resume=True, **options)
    assert np.allclose(history["loss"], alone["loss"], rtol=1e-4)
