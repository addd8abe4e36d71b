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
from helpers import TinyNet, run_python, tiny_cells

import cellscan
from cellscan.training import init_state, make_augment, make_train_step
from cellscan.training.devices import Examples, make_epoch

TESTS = Path(__file__).parents[1]
TRAIN = """
import jax, json, optax
from flax import nnx
from helpers import TinyNet, tiny_cells
import cellscan
from cellscan.training import loop
if {resident}:
    real = loop.make_epoch
    loop.make_epoch = lambda *args: real(*args, resident=True)
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
            env={"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        )
    )


@pytest.fixture(scope="module")
def alone() -> dict:
    return train()


@pytest.mark.parametrize("resident", [False, True])
def test_the_second_epoch_is_not_compiled_anew(resident) -> None:
    cells, optimizer = tiny_cells(24, 16), optax.sgd(0.1)
    net = TinyNet(rngs=nnx.Rngs(0))
    run = make_epoch(make_train_step(net, optimizer), Examples(cells.images(16), cells.labels), 8, resident=resident)
    state, compiled = init_state(net, optimizer), list[float]()
    order, key = np.arange(24), jax.random.key(0)
    state, _ = run(state, order, key, lambda images, loss: None)

    def listen(event: str, duration_secs: float, **_: object) -> None:
        compiled.extend([duration_secs] if event == "/jax/core/compile/backend_compile_duration" else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + len(compiled))(1.0)
        assert len(compiled) == 1  # it hears
        run(state, order, key, lambda images, loss: None)
        assert len(compiled) == 1
    finally:
        jax.monitoring.clear_event_listeners()


def test_resident_and_streamed_take_the_same_steps() -> None:
    cells = tiny_cells(24, 16)
    examples = Examples(cells.images(16), cells.labels)
    net = TinyNet(rngs=nnx.Rngs(0))
    results = []
    for resident in (False, True):
        optimizer = optax.sgd(0.1)
        step = make_train_step(net, optimizer, augment=make_augment("small"), surround="random", mixup=0.2)
        run, ticks = make_epoch(step, examples, 8, resident=resident), list[int]()
        state = init_state(net, optimizer)
        order = np.random.default_rng(0).permutation(24)
        state, metrics = run(state, order, jax.random.key(0), lambda images, _, done=ticks: done.append(images))
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
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
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
        told = json.loads(out.strip().splitlines()[-1])
        assert told["devices"] == 2
        assert np.allclose(told["loss"], alone["loss"], rtol=1e-4)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    resumed = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
    cells, recipe = tiny_cells(32, 16), cellscan.Recipe(optimizer=optax.sgd(0.1))
    options = {"recipe": recipe, "epochs": 2, "batch_size": 8, "progress": False}  # on one device, what two wrote
    history = resumed.fit(cells, validation=cells, checkpoint=tmp_path / "run", resume=True, **options)
    assert np.allclose(history["loss"], alone["loss"], rtol=1e-4)
