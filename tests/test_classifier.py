"""Fit, predict, evaluate and save a classifier, on small cells."""

import json
import threading
import tracemalloc
from dataclasses import asdict
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import TinyNet, compilations, random_image, run_python, tiny_cells, write_cells
from PIL import Image
from safetensors.numpy import load_file, save_file

import cellscan
from cellscan import Classifier, Recipe
from cellscan.tasks.batches import BATCH_SIZES
from cellscan.tensors import write_tensors


@pytest.fixture(scope="module")
def trained() -> Classifier:
    train, valid = tiny_cells(96).split(test=0.34, seed=0)
    clf = Classifier(image_size=32, seed=0)
    clf.fit(train, validation=valid, epochs=4, batch_size=16, progress=False)
    return clf


# --- fit


def test_fit_learns_and_tells(trained) -> None:
    assert trained.evaluate(tiny_cells()).accuracy > 0.9
    card = trained.card
    assert card.epochs == 4
    assert card.recipe is not None
    assert card.recipe["batch_size"] == 16
    assert card.data["train"]["patients"] == 4
    assert "by patient" in card.data["train"]["split"]
    assert set(card.metrics["fit"]) >= {"loss", "validation_accuracy", "validation_roc_auc"}


def test_same_seed_same_weights_in_a_process_and_across() -> None:
    code = """
import hashlib, sys
import numpy as np
sys.path.insert(0, {path!r})
from helpers import tiny_cells
import cellscan
clf = cellscan.Classifier(image_size=16, seed=5)
clf.fit(tiny_cells(), epochs=2, batch_size=16, progress=False)
print(hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in clf._members[0]["params"].values())).hexdigest())
"""
    from helpers import REPOSITORY

    code = code.format(path=str(REPOSITORY / "tests"))
    assert run_python(code) == run_python(code)
    runs = []
    for seed in (5, 5, 6):
        clf = Classifier(image_size=16, seed=seed)
        clf.fit(tiny_cells(), epochs=1, batch_size=16, progress=False)
        runs.append(clf.predict_proba(tiny_cells()))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_second_fit_goes_on() -> None:
    clf = Classifier(image_size=16, seed=0)
    first = clf.fit(tiny_cells(), epochs=2, progress=False)
    second = clf.fit(tiny_cells(), epochs=2, progress=False)
    assert (first["epoch"], second["epoch"]) == ([1, 2], [3, 4])
    assert second["loss"][0] < first["loss"][0]
    assert clf.card.epochs == 4


def test_classes_match_by_name_not_index() -> None:
    cells = tiny_cells(96)
    swapped = cells.rename_classes({"parasitized": "x"}).rename_classes(
        {"uninfected": "Parasitized", "x": "UNINFECTED"}
    )
    clf = Classifier(image_size=32, seed=0)
    clf.fit(cells, epochs=4, batch_size=16, progress=False)
    assert clf.evaluate(cells).accuracy > 0.9
    assert clf.evaluate(swapped).accuracy < 0.1
    with pytest.raises(cellscan.DataError, match="rename_classes"):
        clf.evaluate(cells.rename_classes({"parasitized": "sick"}))


def test_early_stopping_restores_the_best() -> None:
    train, valid = tiny_cells(96).split(test=0.34, seed=0)
    clf = Classifier(image_size=16, seed=0)
    recipe = Recipe(patience=1, monitor="loss", learning_rate=0.5, schedule="constant", ema=None, clip_norm=None)
    history = clf.fit(train, validation=valid, epochs=12, batch_size=16, recipe=recipe, progress=False)
    losses = history["validation_loss"]
    assert len(losses) < 12
    assert losses[-1] >= min(losses[:-1])
    p = clf.predict_proba(valid)
    now = -np.log(np.maximum(p[np.arange(len(valid)), valid.labels], 1e-7)).mean()
    assert np.isclose(now, min(losses), rtol=1e-4)


def test_without_patience_the_last_weights_stay() -> None:
    train, valid = tiny_cells(96).split(test=0.34, seed=0)
    clf = Classifier(image_size=16, seed=0)
    history = clf.fit(train, validation=valid, epochs=3, batch_size=16, progress=False)
    p = clf.predict_proba(valid)
    now = -np.log(np.maximum(p[np.arange(len(valid)), valid.labels], 1e-7)).mean()
    assert np.isclose(now, history["validation_loss"][-1], rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights() -> None:
    clf = Classifier(image_size=16, seed=0)
    clf.fit(tiny_cells(), epochs=1, progress=False)

    def loss(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels) * jnp.inf

    before = clf.predict_proba(tiny_cells())
    with pytest.raises(cellscan.TrainingError, match="step 1 of epoch 2"):
        clf.fit(tiny_cells(), epochs=3, recipe=Recipe(loss=loss), progress=False)
    assert np.array_equal(clf.predict_proba(tiny_cells()), before)
    assert clf.card.epochs == 1  # the card speaks of whole epochs
    assert np.isfinite(clf.card.metrics["fit"]["loss"])


@pytest.mark.parametrize("stored", [False, True])
def test_ctrl_c_keeps_the_last_whole_epoch(monkeypatch, tmp_path, stored) -> None:
    from cellscan.training import devices

    clf = Classifier(image_size=16, seed=0)
    calls = []

    class Interrupting(np.ndarray):
        """Labels that press Ctrl-C in the middle of the third epoch."""

        def __getitem__(self, index):
            if isinstance(index, np.ndarray) and len(index) == 24:  # a batch; np.unique reads labels too
                calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return np.asarray(super().__getitem__(index))

    def examples(self, cells, name, progress):
        whole = real_examples(self, cells, name, progress)
        return devices.Examples(whole.pixels, whole.labels.view(Interrupting))

    real_examples = Classifier._examples
    monkeypatch.setattr(Classifier, "_examples", examples)
    options = {"checkpoint": tmp_path / "run"} if stored else {}
    with pytest.raises(KeyboardInterrupt):
        clf.fit(tiny_cells(), epochs=5, batch_size=24, progress=False, **options)
    monkeypatch.undo()
    assert clf.card.epochs == 2
    assert clf.predict_proba(tiny_cells()).shape == (48, 2)
    if stored:
        history = clf.fit(tiny_cells(), epochs=5, batch_size=24, progress=False, resume=True, **options)
        assert history["epoch"] == [1, 2, 3, 4, 5]
        whole = Classifier(image_size=16, seed=0)
        whole.fit(tiny_cells(), epochs=5, batch_size=24, progress=False)
        assert np.array_equal(whole.predict_proba(tiny_cells()), clf.predict_proba(tiny_cells()))


def test_progress_is_lines_without_a_terminal_and_silence_on_request(capfd) -> None:
    clf = Classifier(image_size=16, seed=0)
    clf.fit(tiny_cells(), validation=tiny_cells(), epochs=2, progress=False)
    assert capfd.readouterr().err == ""
    clf.fit(tiny_cells(), validation=tiny_cells(), epochs=2)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert "epoch   3 of 4" in lines[0]
    assert "images/s" in lines[0]


def test_bad_fits() -> None:
    clf, cells = Classifier(image_size=16), tiny_cells()
    bad: dict[str, Any]
    for bad in ({"epochs": 0}, {"batch_size": 0}, {"epochs": 1.5}):
        with pytest.raises(cellscan.ArgumentError, match=next(iter(bad))):
            clf.fit(cells, **bad)
    with pytest.raises(cellscan.ArgumentError, match="validation="):
        clf.fit(cells, recipe=Recipe(patience=1))
    with pytest.raises(cellscan.DataError, match="at least two classes"):
        clf.fit(cells.select(cells.labels == 0))
    with pytest.raises(cellscan.DataError, match="empty"):
        clf.fit(cells.select([]))
    with pytest.raises(cellscan.ArgumentError, match="from_arrays"):
        clf.fit(np.zeros((4, 16, 16, 3), np.uint8))  # type: ignore[arg-type]
    one = cells.select(cells.labels == 0)
    with pytest.raises(cellscan.ArgumentError, match="roc_auc"):
        clf.fit(cells, validation=one, recipe=Recipe(patience=1, monitor="roc_auc"))


# --- predict


def test_all_forms_of_input_agree(trained, tmp_path) -> None:
    image = random_image(height=70, width=50)
    Image.fromarray(image).save(tmp_path / "a.png")
    want = trained.predict_proba(image)
    assert want.shape == (1, 2)
    assert want.dtype == np.float32
    forms = (
        str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(image), image[None], [image], (i for i in [image]),
        tmp_path, jnp.asarray(image), image.astype(np.float64) / 255, cellscan.CellDataset.from_arrays([image], [0]),
        cellscan.CellDataset.from_arrays([image], [0]).images(32),
    )  # fmt: skip
    for form in forms:
        assert np.array_equal(trained.predict_proba(form), want), type(form)
    mixed = trained.predict([tmp_path / "a.png", Image.fromarray(image), image])
    assert np.allclose(mixed.probabilities, want, atol=1e-5)
    assert mixed.names == (str(tmp_path / "a.png"), "image 1", "image 2")


def test_predictions_are_a_sequence_with_arrays(trained, tmp_path) -> None:
    cells = tiny_cells()
    preds = trained.predict(cells)
    assert len(preds) == 48
    assert preds.labels.dtype == np.int32
    assert preds.names == tuple(cells.names)
    p = preds[3]
    assert p.label == preds.labels[3]
    assert p.label_name == preds.label_names[3]
    assert p.probability == pytest.approx(p.probabilities[p.label_name])
    assert sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert p.positive == (p.label_name == "parasitized")
    assert [q.label for q in preds[:3]] == preds.labels[:3].tolist()
    assert len(preds[-1].name) > 0
    with pytest.raises(IndexError):
        preds[48]
    assert "48 predictions" in repr(preds)


def test_skip_loses_nothing_else(trained, tmp_path) -> None:
    good = random_image()
    (tmp_path / "bad.png").write_bytes(b"")
    items = [good, tmp_path / "bad.png", "absent.png", good, None, np.zeros((2, 8, 8, 3), np.uint8)]
    preds = trained.predict(items, on_error="skip")
    assert preds.indices.tolist() == [0, 3]
    assert [f.index for f in preds.failed] == [1, 2, 4, 5]
    assert "0 bytes" in preds.failed[0].reason
    preds.to_csv(tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 7
    assert lines[2].startswith("1,")
    assert "0 bytes" in lines[2]
    with pytest.raises(cellscan.ImageError, match=r"bad\.png"):
        trained.predict(items)
    with pytest.raises(cellscan.ArgumentError, match="'raise', 'skip'"):
        trained.predict(items, on_error="ignore")


def test_skip_works_on_data_sets_too(trained, tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["3.png"]})
    (root / "a" / "bad.png").write_bytes(b"no image")
    cells = cellscan.load_folder(root)
    preds = trained.predict(cells, on_error="skip")
    assert preds.indices.tolist() == [0, 1, 3]
    assert preds.names == ("a/1.png", "a/2.png", "b/3.png")
    assert [(f.index, f.name) for f in preds.failed] == [(2, "a/bad.png")]
    with pytest.raises(cellscan.ImageError, match=r"bad\.png"):
        trained.predict(cells)


@pytest.mark.parametrize("bad", [3, {"a": 1}, None])
def test_what_holds_no_images(trained, bad) -> None:
    with pytest.raises(cellscan.ArgumentError, match="expected a path, a folder"):
        trained.predict(bad)


def test_empty_folder_and_empty_list(trained, tmp_path) -> None:
    with pytest.raises(cellscan.ImageError, match="no images in this folder"):
        trained.predict(tmp_path)
    assert len(trained.predict([])) == 0
    assert trained.predict_proba([]).shape == (0, 2)


def test_folder_is_searched_with_subfolders(trained, tmp_path) -> None:
    write_cells(tmp_path, {"x": ["1.png"], "x/y": ["2.png"], "__MACOSX": ["3.png"], ".hidden": ["4.png"]})
    assert trained.predict(tmp_path).names == ("x/1.png", "x/y/2.png")


def test_any_number_of_images_compiles_few_shapes(trained) -> None:
    whole = random_image(height=32, width=32)
    images = np.stack([np.roll(whole, k, 0) for k in range(130)])
    with compilations() as names:
        want = trained.predict_proba(images)
        for count in (1, 2, 5, 8, 9, 63, 64, 65, 129):
            assert np.allclose(trained.predict_proba(images[:count]), want[:count], atol=1e-5)
    assert names.count("predict") <= len(BATCH_SIZES)


def test_a_generator_streams_in_bounded_memory(trained) -> None:
    def stream():
        for k in range(300):
            yield np.full((400, 400, 3), k % 256, np.uint8)  # 0.5 MB each, 144 MB together

    trained.predict(np.zeros((64, 8, 8, 3), np.uint8))
    tracemalloc.start()
    preds = trained.predict(stream())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(preds) == 300
    assert peak < 40e6


def test_threads_give_the_same_bits(trained) -> None:
    images = [np.stack([random_image(10 * t + k, 32, 32) for k in range(12)]) for t in range(6)]
    want = [trained.predict_proba(batch) for batch in images]
    got: list[list[bool]] = [[] for _ in images]

    def work(t: int) -> None:
        for _ in range(8):
            got[t].append(np.array_equal(trained.predict_proba(images[t]), want[t]))

    threads = [threading.Thread(target=work, args=(t,)) for t in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[True] * 8] * 6


def test_threshold_applies_from_it_upwards() -> None:
    clf = Classifier(image_size=32, seed=0)
    images = np.stack([random_image(k, 32, 32) for k in range(20)])
    p = clf.predict_proba(images)[:, 0]
    cut = float(np.sort(p)[7])
    clf.threshold = cut
    assert np.array_equal(clf.predict(images).labels == 0, p >= np.float32(cut))
    assert clf.card.decision.threshold == cut
    for bad in (0, 1, -1, float("nan")):
        with pytest.raises(cellscan.ArgumentError, match="threshold"):
            clf.threshold = bad


def test_three_classes_have_no_threshold() -> None:
    names = ("ring", "trophozoite", "uninfected")
    cells = tiny_cells().rename_classes({"parasitized": "Ring"})
    clf = Classifier(image_size=16, class_names=names)
    assert clf.threshold is None
    with pytest.raises(cellscan.ArgumentError, match="no threshold"):
        clf.threshold = 0.4
    clf.fit(cells, epochs=1, progress=False)
    preds = clf.predict(cells)
    assert np.array_equal(preds.labels, preds.probabilities.argmax(1))
    assert preds[0].positive is None
    report = clf.evaluate(cells)
    assert np.isnan(report.sensitivity)
    assert report.confusion.shape == (3, 3)
    assert "truth / called" in str(report)
    report.plot()


def test_the_view_reaches_predict_and_embed() -> None:
    cell = cellscan.synthetic_cells(8, seed=0)[0].image
    black, grey = cell.copy(), cell.copy()
    grey[cell.max(-1) == 0] = 200
    for background, same in (("keep", False), ("fill", False), ("silhouette", False)):
        clf = Classifier(image_size=32, background=background, seed=0)
        assert np.array_equal(clf.predict_proba(black), clf.predict_proba(grey)) == same
    mean = np.array(cell[cell.max(-1) > 0].mean(0), np.uint8)
    filled = cell.copy()
    filled[cell.max(-1) == 0] = mean
    clf = Classifier(image_size=32, background="fill", seed=0)
    near = np.abs(clf.embed(filled) - clf.embed(cell)).mean()
    far = np.abs(clf.embed(grey) - clf.embed(cell)).mean()
    assert near < far
    assert clf.embed(cellscan.synthetic_cells(8, seed=0)).shape == (8, 128)


# --- own networks


def test_own_network_end_to_end(tmp_path) -> None:
    net = TinyNet(rngs=nnx.Rngs(0, dropout=1))
    kept = np.asarray(net.conv.kernel[...]).copy()
    clf = Classifier(net, image_size=32, seed=0)
    clf.fit(tiny_cells(96), epochs=6, batch_size=16, recipe=Recipe(learning_rate=0.02), progress=False)
    assert np.array_equal(net.conv.kernel[...], kept)  # the module handed over stays as it was
    assert clf.evaluate(tiny_cells()).accuracy > 0.8
    assert clf.embed(random_image()).shape == (1, 8)
    path = tmp_path / "own.safetensors"
    clf.save(path)
    with pytest.raises(cellscan.ModelFileError, match="model="):
        Classifier.load(path)
    loaded = Classifier.load(path, model=TinyNet(rngs=nnx.Rngs(9, dropout=1)))
    assert np.array_equal(loaded.predict_proba(tiny_cells()), clf.predict_proba(tiny_cells()))
    with pytest.raises(cellscan.ModelFileError, match=r"head\.kernel"):
        Classifier.load(path, model=TinyNet(3, rngs=nnx.Rngs(9, dropout=1)))
    assert "0.params.head.kernel" in load_file(path)
    assert not any("rngs" in name for name in load_file(path))


def test_embed_needs_features() -> None:
    class Plain(nnx.Module):
        def __call__(self, x):
            return x.mean((1, 2))[:, :2]

    with pytest.raises(cellscan.ArgumentError, match="pre_logits"):
        Classifier(Plain(), image_size=16).embed(random_image())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image_size": 8}, "16 or more"), ({"image_size": 64.0}, "image_size"),
        ({"class_names": ("a",)}, "at least two"), ({"class_names": "ab"}, "at least two"),
        ({"class_names": ("a", "A")}, "more than case"),
        ({"positive_class": 3}, "positive_class"),
        ({"class_names": ("a", "b"), "positive_class": "sick"}, "positive_class"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_constructions(bad, message) -> None:
    with pytest.raises(cellscan.ArgumentError, match=message):
        Classifier(**bad)


@pytest.mark.parametrize("names", [("healthy", "infected"), ("ring", "trophozoite", "uninfected")])
def test_the_first_fit_takes_the_classes_of_its_set(names) -> None:
    cells = tiny_cells()
    cells = cellscan.CellDataset.from_arrays(
        cells.images(16)[:], np.arange(48) % len(names), class_names=names, patients=cells.patients
    )
    clf, given = Classifier(image_size=16, seed=3), Classifier(image_size=16, seed=3, class_names=names)
    assert clf.predict(cells[:2]).class_names == ("parasitized", "uninfected")
    for one in (clf, given):
        one.fit(cells, epochs=1, batch_size=16, progress=False)
    assert clf.class_names == names
    assert clf.positive_class is None
    assert clf.fingerprint == given.fingerprint
    assert str(clf.evaluate(cells))
    with pytest.raises(cellscan.DataError, match="clf.positive_class"):
        _ = clf.evaluate(cells).patients
    other = cells.rename_classes({names[0]: "sick"})
    with pytest.raises(cellscan.DataError, match="rename_classes"):
        clf.fit(other, epochs=1, progress=False)
    if len(names) == 2:
        assert clf.threshold is None
        for call in (lambda: clf.choose_threshold(cells, sensitivity=0.9), lambda: setattr(clf, "threshold", 0.3)):
            with pytest.raises(cellscan.ArgumentError, match="clf.positive_class = 'infected'"):
                call()
        clf.positive_class = "Infected"
        assert (clf.positive_class, clf.threshold) == ("infected", 0.5)
        assert len(clf.evaluate(cells).patients) == 6


def test_a_positive_class_of_the_set_that_is_to_come() -> None:
    cells = tiny_cells().rename_classes({"parasitized": "Ring"})
    clf = Classifier(image_size=16, seed=0, positive_class="ring")
    assert clf.positive_class == "parasitized"  # of the classes that it has until then
    clf.fit(cells, epochs=1, batch_size=16, progress=False)
    assert (clf.class_names, clf.positive_class) == (("Ring", "uninfected"), "Ring")
    odd = Classifier(image_size=16, positive_class="sick")
    with pytest.raises(cellscan.ArgumentError, match="positive_class is 'sick'; expected one of"):
        odd.fit(cells, epochs=1, progress=False)
    with pytest.raises(cellscan.DataError, match="expected at least two classes"):
        Classifier(image_size=16).fit(cells.drop_classes(["Ring"]), epochs=1, progress=False)


def test_positive_class_by_name_in_any_case() -> None:
    clf = Classifier(image_size=16, class_names=("Healthy", "Infected"), positive_class="infected")
    assert clf.positive_class == "Infected"
    assert clf.predict(random_image())[0].positive in (True, False)


# --- evaluate and patient overlap


def test_report_counts_patient_overlap(trained) -> None:
    train, valid = tiny_cells(96).split(test=0.34, seed=0)
    assert "PATIENT OVERLAP: 4 in training, 0 in validation" in str(trained.evaluate(train)).splitlines()[0]
    assert "PATIENT OVERLAP: 0 in training, 2 in validation" in str(trained.evaluate(valid)).splitlines()[0]
    new = tiny_cells(20).select(slice(0, 20))
    others = cellscan.CellDataset.from_arrays(
        [c.image for c in new], new.labels, patients=[f"new{i % 3}" for i in range(20)]
    )
    assert "no overlap with training" in str(trained.evaluate(others)).splitlines()[0]
    text = json.dumps(asdict(trained.card))
    assert '"p0"' not in text
    clf = Classifier(image_size=16)
    clf.fit(cellscan.CellDataset.from_arrays([c.image for c in new], new.labels), epochs=1, progress=False)
    assert "cannot be determined" in str(clf.evaluate(tiny_cells())).splitlines()[0]


def test_evaluate_counts_each_cell_once(trained) -> None:
    for count in (1, 9, 65):
        cells = tiny_cells(96).select(np.arange(count))
        assert trained.evaluate(cells).confusion.sum() == count


# --- files


def test_save_and_load_keep_everything(trained, tmp_path) -> None:
    path = tmp_path / "m.safetensors"
    report = trained.evaluate(tiny_cells())
    trained.save(path, report=report, licence="Apache-2.0")
    loaded = Classifier.load(path)
    assert np.array_equal(loaded.predict_proba(tiny_cells()), trained.predict_proba(tiny_cells()))
    assert loaded.card.licence == "Apache-2.0"
    assert loaded.card.metrics["report"]["metrics"]["accuracy"]["value"] == report.accuracy
    assert loaded.card.patient_hashes == trained.card.patient_hashes
    assert loaded.card.recipe == trained.card.recipe
    assert set(loaded.card.versions) >= {"cellscan", "jax", "flax", "python"}
    assert str(loaded.evaluate(tiny_cells())) == str(report)
    assert not list(tmp_path.glob("*.part"))
    more = loaded.fit(tiny_cells(), epochs=1, progress=False)
    assert more["epoch"] == [5]


def edit(path, target, change) -> None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        raw = json.loads(file.metadata()["cellscan"])
    tensors = load_file(path)
    change(raw, tensors)
    write_tensors(target, tensors, {"cellscan": json.dumps(raw)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw, t: raw.update(format=99), "newer cellscan"),
        (lambda raw, t: raw.pop("class_names"), "card is damaged"),
        (lambda raw, t: raw.update(format="x"), "card is damaged"),
        (lambda raw, t: raw.update(architecture="resnet999"), "there is no network"),
        (lambda raw, t: raw.update(resize={"filter": "nearest"}), "resize rule"),
        (lambda raw, t: raw["decision"].update(threshold=7), "threshold"),
        (lambda raw, t: t.pop("0.params.stem.kernel"), r"missing 0\.params\.stem\.kernel"),
        (lambda raw, t: t.update({"0.params.extra": np.zeros(2, np.float32)}), r"unknown 0\.params\.extra"),
        (lambda raw, t: t.update({"0.params.head.bias": np.zeros(3, np.float32)}), r"expected float32 \(2,\)"),
    ],
)
def test_damaged_and_newer_files(trained, tmp_path, change, message) -> None:
    path = tmp_path / "m.safetensors"
    trained.save(path)
    edit(path, tmp_path / "x.safetensors", change)
    with pytest.raises(cellscan.CellscanError, match=message) as caught:
        Classifier.load(tmp_path / "x.safetensors")
    assert isinstance(caught.value, cellscan.ModelFileError)
    assert "x.safetensors" in str(caught.value)


def test_unknown_entries_of_the_same_format_are_passed_over(trained, tmp_path) -> None:
    trained.save(tmp_path / "m.safetensors")
    edit(tmp_path / "m.safetensors", tmp_path / "x.safetensors", lambda raw, t: raw.update(not_yet={"later": 1}))
    assert Classifier.load(tmp_path / "x.safetensors").card.epochs == 4


def test_foreign_files(trained, tmp_path) -> None:
    trained.save(tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "pickle.pkl").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    save_file({"a": np.zeros(2)}, tmp_path / "other.safetensors")
    for name, message in (("cut", "complete"), ("pickle", "not supported"), ("empty", "complete"), ("other", "card")):
        (path,) = tmp_path.glob(f"{name}.*")
        with pytest.raises(cellscan.ModelFileError, match=message):
            Classifier.load(path)
    with pytest.raises(cellscan.ModelFileError, match="create it first"):
        trained.save(tmp_path / "no" / "m.safetensors")


def test_tta_averages_the_eight_symmetries(trained) -> None:
    image = random_image(3, 32, 32)
    turned = [np.rot90(flipped, turns) for flipped in (image, image[:, ::-1]) for turns in range(4)]
    expected = trained.predict_proba(np.stack(turned)).mean(0)
    assert np.allclose(trained.predict_proba(image, tta=True)[0], expected, atol=1e-6)
    assert np.allclose(trained.predict(image[:, ::-1].copy(), tta=True).probabilities[0], expected, atol=1e-6)
    assert not np.allclose(trained.predict_proba(image)[0], expected, atol=1e-6)
    cells = tiny_cells()
    assert np.array_equal(trained.evaluate(cells, tta=True).probabilities, trained.predict_proba(cells, tta=True))


def test_decisions_are_chosen_for_probabilities_that_are_averaged(trained, tmp_path) -> None:
    from cellscan.evaluate.calibration import fit_temperature

    images = np.stack([random_image(seed, 32, 32) for seed in range(60)])
    cells = cellscan.CellDataset.from_arrays(
        images, np.arange(60) % 2, patients=[f"q{i // 3}" for i in range(60)], class_names=trained.class_names
    )
    trained.save(tmp_path / "m.safetensors")
    clf = Classifier.load(tmp_path / "m.safetensors")
    turned = [np.rot90(flipped, turns, (1, 2)) for flipped in (images, images[:, :, ::-1]) for turns in range(4)]
    alone = [clf.predict_proba(np.ascontiguousarray(one)) for one in turned]
    assert clf.calibrate(cells, tta=True) == pytest.approx(fit_temperature(alone, cells.labels), rel=1e-3)
    scores = clf.predict_proba(cells, tta=True)
    threshold = clf.choose_threshold(cells, sensitivity=0.9, tta=True)
    assert threshold == np.sort(scores[cells.labels == 0, 0])[3]
    assert clf.evaluate(cells, tta=True).sensitivity == 0.9
    called = scores[:, 0] >= threshold
    shares = sorted(called[cells.patients == patient].mean() for patient in set(cells.patients.tolist()))
    assert clf.choose_patient_rule(cells, sensitivity=0.9, tta=True) == pytest.approx(shares[2])
    quantile = clf.conformalize(cells, alpha=0.3, tta=True)
    assert np.isclose(1 - scores[np.arange(60), cells.labels], quantile).any()


def test_calibration_mends_probabilities_and_moves_no_label(trained, tmp_path) -> None:
    from cellscan.evaluate.calibration import expected_calibration_error as error

    rng = np.random.default_rng(0)
    images = np.stack([random_image(seed, 32, 32) for seed in range(200)])
    cells = cellscan.CellDataset.from_arrays(images, rng.integers(0, 2, 200), patients=[f"q{i}" for i in range(200)])
    trained.save(tmp_path / "m.safetensors")
    clf = Classifier.load(tmp_path / "m.safetensors")
    before = clf.predict(cells)
    temperature = clf.calibrate(cells)  # labels are noise: nothing but a coin is right
    after = clf.predict(cells)
    assert temperature > 1
    assert error(after.probabilities, cells.labels) < error(before.probabilities, cells.labels)
    assert np.array_equal(before.labels, after.labels)
    assert clf.card.count_overlap(np.array(["q1"])) == (1, {"train": 0, "validation": 0, "decision": 1})
    clf.save(tmp_path / "n.safetensors")
    assert np.array_equal(Classifier.load(tmp_path / "n.safetensors").predict_proba(cells), after.probabilities)


def test_pretrained_needs_no_network_and_says_what_it_is() -> None:
    clf = Classifier.pretrained()
    assert clf.card.licence == "Apache-2.0, fine-tuned from SqueezeNet weights under MIT (see NOTICE)"
    assert clf.card.weights is not None
    assert clf.card.weights["licence"] == "MIT"
    assert clf.card.metrics["folds"]["0"]["accuracy"] > 0.95
    assert np.array_equal(
        clf.predict_proba(random_image()), Classifier.pretrained("malaria_squeezenet").predict_proba(random_image())
    )
    with pytest.raises(cellscan.ArgumentError, match="malaria_squeezenet"):
        Classifier.pretrained("resnet50")


def test_a_flipped_bit_is_an_error_and_not_another_result(trained, tmp_path) -> None:
    trained.save(tmp_path / "m.safetensors")
    content = bytearray((tmp_path / "m.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(cellscan.ModelFileError, match="digest"):
        Classifier.load(tmp_path / "m.safetensors")


def test_a_float16_file_is_nearly_the_same_classifier(trained, tmp_path) -> None:
    trained.save(tmp_path / "whole.safetensors")
    trained.save(tmp_path / "float16.safetensors", dtype="float16")
    assert (tmp_path / "float16.safetensors").stat().st_size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size
    narrow = Classifier.load(tmp_path / "float16.safetensors")
    before, after = trained.predict_proba(tiny_cells()), narrow.predict_proba(tiny_cells())
    assert 0 < np.abs(before - after).max() < 5e-3
    narrow.save(tmp_path / "again.safetensors", dtype="float16")
    assert np.array_equal(Classifier.load(tmp_path / "again.safetensors").predict_proba(tiny_cells()), after)


def test_an_ensemble_fits_in_one_file(trained, tmp_path) -> None:

    other = Classifier(image_size=32, seed=7)
    both = Classifier.ensemble([trained, other])
    mean = (trained.predict_proba(tiny_cells()) + other.predict_proba(tiny_cells())) / 2
    assert np.allclose(both.predict_proba(tiny_cells()), mean, atol=1e-5)
    both.save(tmp_path / "two.safetensors")
    loaded = Classifier.load(tmp_path / "two.safetensors")
    assert np.array_equal(loaded.predict_proba(tiny_cells()), both.predict_proba(tiny_cells()))
    with pytest.raises(cellscan.ArgumentError, match="ensemble"):
        loaded.fit(tiny_cells(), epochs=1)


def test_temperature_softens(trained) -> None:
    from dataclasses import replace

    clf = Classifier(image_size=32)
    decision = cellscan.Decision(temperature=3.0)
    clf._set(clf._task.network, trained._members, replace(trained.card, decision=decision))
    hot, cold = clf.predict_proba(tiny_cells()), trained.predict_proba(tiny_cells())
    logit = np.log(cold[:, 0] / cold[:, 1]) / 3
    assert np.allclose(hot[:, 0], 1 / (1 + np.exp(-logit)), atol=1e-4)
    with pytest.raises(cellscan.ArgumentError, match="temperature"):
        cellscan.Decision(temperature=0)


def test_summary_and_model(trained, capsys) -> None:
    trained.summary()
    text = capsys.readouterr().out
    assert "495,554 parameters" in text
    assert text.index("stem ") < text.index("stage1") < text.index("head")
    assert trained.model(jnp.zeros((2, 32, 32, 3))).shape == (2, 2)
    assert "small_cnn" in repr(trained)


def test_history_is_a_mapping_with_a_picture() -> None:
    clf = Classifier(image_size=16, seed=0)
    history = clf.fit(tiny_cells(), validation=tiny_cells(), epochs=2, progress=False)
    assert {"loss", "accuracy", "validation_loss", "validation_accuracy", "validation_roc_auc"} <= set(history)
    assert len(str(history).splitlines()) == 2
    assert len(history.plot().axes) == 2
    with pytest.raises(KeyError):
        history["f1"]
    with pytest.raises(cellscan.ArgumentError, match="no epochs"):
        cellscan.History([]).plot()
