"""Keras's side of `benchmarks/speed.py`: Keras 3 on JAX, with `fit` and `predict`."""

from __future__ import annotations

import os
import platform
import time

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from keras import layers
from shared import BATCH, SIZE, STEPS, answer, batch, seconds, since_start


def plain() -> keras.Model:
    """Four 3x3 convolutions of 32, 64, 128, 128; pooled after three; dense 8192-128-2."""
    stack = [layers.Input((SIZE, SIZE, 3), dtype="uint8"), layers.Rescaling(1 / 127.5, offset=-1)]
    for number, width in enumerate((32, 64, 128, 128)):
        stack.append(layers.Conv2D(width, 3, padding="same", activation="relu"))
        stack += [layers.MaxPooling2D()] if number < 3 else []
    stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(2, activation="softmax")]
    model = keras.Sequential(stack)
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss="sparse_categorical_crossentropy")
    return model


def train(net: str) -> float:
    """Return `fit`'s images a second over a second epoch."""
    assert net == "plain"
    model, (images, labels) = plain(), batch(BATCH * STEPS)
    model.fit(images, labels, batch_size=BATCH, epochs=1, verbose=0)
    start = time.perf_counter()
    model.fit(images, labels, batch_size=BATCH, epochs=1, verbose=0)
    return len(images) / (time.perf_counter() - start)


def one(net: str) -> float:
    """Return milliseconds of one array through `predict`."""
    assert net == "plain"
    model, image = plain(), batch(1)[0]
    return 1e3 * seconds(lambda: model.predict(image, verbose=0), times=100, warm=10)


def first_answer() -> float:
    """Return seconds from the start of this process to the probabilities of one array."""
    plain().predict(batch(1)[0], verbose=0)
    return since_start()


def backbone(net: str, size: str) -> keras.Model:
    """Return a network of `keras.applications`, its average over the image, and a dense layer."""
    make = {"vgg16": keras.applications.VGG16, "resnet50": keras.applications.ResNet50}[net]
    body = make(include_top=False, weights=None, pooling="avg", input_shape=(int(size), int(size), 3))
    scaled = layers.Rescaling(1 / 127.5, offset=-1)
    inputs = layers.Input((int(size), int(size), 3), dtype="uint8")
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(body(scaled(inputs))))
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss="sparse_categorical_crossentropy")
    return model


def forward(net: str, size: str, count: str) -> float:
    """Return milliseconds of a backbone's probabilities of a batch, by `predict_on_batch`."""
    model, images = backbone(net, size), batch(int(count), int(size))[0]
    return 1e3 * seconds(lambda: np.asarray(model.predict_on_batch(images)))


def tune(net: str, size: str, count: str) -> float:
    """Return milliseconds of a fine-tuning step, by `train_on_batch`."""
    model, (images, labels) = backbone(net, size), batch(int(count), int(size))
    return 1e3 * seconds(lambda: float(model.train_on_batch(images, labels)), times=8, warm=2)


if __name__ == "__main__":
    versions = f"Keras {keras.__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    answer({"first_answer": first_answer, "train": train, "one": one, "forward": forward, "tune": tune}, versions)
