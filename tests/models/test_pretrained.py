"""Published files: found, refused, named."""

import sys
from pathlib import Path

import jax
import numpy as np
import oracle
import pytest
from flax import nnx
from safetensors.numpy import save_file
from test_reference import published

import cellscan
from cellscan.models.registry import create, find

NAME = "squeezenet1_1"
FILE = "model.safetensors"

# Drawn files are of nobody, which is said; the saying has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:.*the normalisation of its images is unknown")


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    tensors = published(create("resnet18"), "resnet18")
    return tensors | {"bn1.num_batches_tracked": np.zeros((), np.int64)}


def write(folder: Path, tensors: dict[str, np.ndarray], name: str = FILE) -> Path:
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / name)
    return folder / name


def params(net: nnx.Module) -> dict[str, np.ndarray]:
    return {
        ".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(net, nnx.Param))
    }


def test_a_file_fills_everything_and_a_new_head_is_left_alone(tmp_path, state) -> None:
    path = write(tmp_path, state)
    net, fresh = params(create("resnet18", weights=path)), params(create("resnet18", seed=3))
    assert all(not np.array_equal(net[name], fresh[name]) for name in net)
    clf = cellscan.Classifier("resnet18", weights=path, image_size=32, seed=3)
    held = params(clf.model)
    assert held["head.kernel"].shape == (512, 2)
    assert all(np.array_equal(held[name], net[name]) for name in held if not name.startswith("head"))
    weights = clf.card.weights
    assert weights is not None
    assert (weights["source"], weights["licence"], weights["revision"]) == (FILE, None, None)  # never invented
    assert len(weights["sha256"]) == 64


def test_a_head_of_another_width_is_replaced_only_where_another_was_asked_for(tmp_path, state) -> None:
    narrow = {**state, "fc.weight": state["fc.weight"][:7], "fc.bias": state["fc.bias"][:7]}
    path = write(tmp_path, narrow)
    assert params(create("resnet18", 5, weights=path))["head.bias"].shape == (5,)
    assert np.array_equal(params(create("resnet18", 7, weights=path))["head.bias"], narrow["fc.bias"])
    cellscan.Classifier("resnet18", weights=path, image_size=32)
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    cellscan.Classifier("resnet18", weights=write(tmp_path, headless, "headless.safetensors"), image_size=32)
    with pytest.raises(cellscan.ModelFileError, match=r"fc\.weight is float32 \(7, 512\)"):
        create("resnet18", weights=path)


def test_everything_wrong_is_named_at_once_and_nothing_is_loaded(tmp_path, state) -> None:
    wrong = dict(state)
    del wrong["layer1.0.conv1.weight"]
    wrong["layer9.conv.weight"] = np.zeros(3, np.float32)
    wrong["layer2.0.bn1.bias"] = np.zeros(5, np.float32)
    wrong["layer3.0.bn1.bias"] = np.zeros(256, np.int32)
    with pytest.raises(cellscan.ModelFileError) as caught:
        create("resnet18", weights=write(tmp_path, wrong))
    for text in ("missing layer1.0.conv1.weight", "unknown layer9.conv.weight", "layer2.0.bn1.bias is float32 (5,)",
                 "layer3.0.bn1.bias is int32"):  # fmt: skip
        assert text in str(caught.value)
    with pytest.raises(cellscan.ModelFileError, match="do not fit"):
        create("vgg16", weights=write(tmp_path, state))


def test_files_that_are_no_safetensors(tmp_path, state) -> None:
    whole = write(tmp_path, state)
    half = tmp_path / "half.safetensors"
    half.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(cellscan.ModelFileError, match=r"half\.safetensors: this is not a complete safetensors file"):
        create("resnet18", weights=half)
    for name in ("model.pth", "model.pt", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(cellscan.ModelFileError, match=r"save_file\(torch\.load"):
            create("resnet18", weights=tmp_path / name)
    with pytest.raises(cellscan.ModelFileError, match="no such file"):
        create("resnet18", weights=tmp_path / "none.safetensors")
    with pytest.raises(cellscan.ArgumentError, match='expected "imagenet", the path'):
        create("resnet18", weights="imagnet")
    for address in ("hf://resnet18", "hf://timm/resnet18@", "hf://timm/resnet18/model.bin"):
        with pytest.raises(cellscan.ArgumentError, match='expected "hf://owner/name", "hf://owner/name@revision"'):
            create("resnet18", weights=address)
    with pytest.raises(cellscan.ArgumentError, match="no published weights for small_cnn"):
        create("small_cnn", weights=whole)
    with pytest.raises(cellscan.ModelFileError, match="not on the Hugging Face hub"):
        create(NAME, weights="imagenet")


def test_without_a_network_the_error_says_which_file_to_bring(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CELLSCAN_CACHE", str(tmp_path))

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(pytest.importorskip("huggingface_hub"), "hf_hub_download", offline)
    with pytest.raises(cellscan.ModelFileError) as caught:
        create("resnet18", weights="imagenet")
    place = tmp_path / "weights" / "timm--resnet18.a1_in1k" / FILE
    for text in (
        "no route",
        "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors",
        "47 MB",
        str(place),
    ):
        assert text in str(caught.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(cellscan.MissingExtraError, match=r"pip install 'cellscan\[hub\]'; or download https.* 47 MB"):
        create("resnet18", weights="imagenet")


def test_a_file_that_was_brought_is_used_and_one_from_the_hub_is_named(tmp_path, monkeypatch, state) -> None:
    monkeypatch.setenv("CELLSCAN_CACHE", str(tmp_path))
    folder = tmp_path / "weights" / "timm--resnet18.a1_in1k"
    folder.mkdir(parents=True)
    write(folder, state)
    clf = cellscan.Classifier("resnet18", weights="imagenet", image_size=32)
    assert clf.card.weights is not None
    assert clf.card.weights["source"] == "timm/resnet18.a1_in1k"
    assert clf.card.weights["licence"] == "Apache-2.0"
    assert clf.card.normalization.mean == (0.485, 0.456, 0.406)

    revision, asked = "0" * 40, []

    def fetch(repository: str, file: str, *, revision: str | None, token: str | None) -> str:
        asked.append((repository, file, revision))
        path = tmp_path / "models--somebody--theirs" / "snapshots" / ("0" * 40) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".json"):
            path.write_text('{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}')
            return str(path)
        return str(write(path.parent, state, path.name))

    monkeypatch.setattr(pytest.importorskip("huggingface_hub"), "hf_hub_download", fetch)
    clf = cellscan.Classifier("resnet18", weights="hf://somebody/theirs", image_size=32)
    assert clf.card.weights is not None
    assert clf.card.weights["source"] == "somebody/theirs"
    assert (clf.card.weights["licence"], clf.card.weights["revision"]) == (None, revision)
    assert asked == [("somebody/theirs", FILE, None), ("somebody/theirs", "config.json", None)]

    asked.clear()
    clf = cellscan.Classifier("resnet18", weights="hf://somebody/theirs@v1/nets/small.safetensors", image_size=32)
    assert clf.card.weights is not None
    assert clf.card.weights["revision"] == revision
    assert clf.card.normalization.mean == (0.5, 0.4, 0.3)
    assert asked == [
        ("somebody/theirs", "nets/small.safetensors", "v1"), ("somebody/theirs", "nets/config.json", "v1")
    ]  # fmt: skip

    # The file that was brought for the default branch is not that of another revision.
    asked.clear()
    create("resnet18", weights="hf://timm/resnet18.a1_in1k@v1")
    assert asked[0] == ("timm/resnet18.a1_in1k", FILE, "v1")
    brought = tmp_path / "weights" / "timm--resnet18.a1_in1k@v1"
    brought.mkdir()
    write(brought, state)
    asked.clear()
    create("resnet18", weights="hf://timm/resnet18.a1_in1k@v1")
    assert not asked


def test_where_weights_came_from_is_kept_in_the_file(tmp_path, state) -> None:
    clf = cellscan.Classifier("resnet18", weights=write(tmp_path, state), image_size=32)
    clf.save(tmp_path / "clf.safetensors")
    again = cellscan.Classifier.load(tmp_path / "clf.safetensors")
    assert again.card.weights == clf.card.weights
    assert again.card.normalization == clf.card.normalization


def test_the_list_of_backbones_says_what_it_is() -> None:
    entries = cellscan.list_backbones()
    assert {"vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101", "inception_v3"} <= {
        e.name for e in entries
    }
    for entry in entries:
        net = jax.eval_shape(
            lambda entry=entry: nnx.state(entry.make(entry.classes, pooled=False, rngs=nnx.Rngs(0)), nnx.Param)
        )
        assert sum(leaf.size for leaf in jax.tree.leaves(net)) == entry.parameters
        assert entry.least_size <= entry.default_size
        assert entry.name in str(entry)
        assert all(source.revision is None for source in entry.weights)
    assert {entry.name for entry in entries if entry.weights} == set(oracle.SIZES)


def test_sizes_and_names_that_do_not_go() -> None:
    with pytest.raises(cellscan.ArgumentError, match="image_size is 74; inception_v3 takes .* 75 or more"):
        cellscan.Classifier("inception_v3", image_size=74)
    with pytest.raises(cellscan.ArgumentError, match="did you mean resnet50"):
        create("resnet5O")
    with pytest.raises(cellscan.ArgumentError, match="num_classes"):
        create("resnet18", num_classes=0)
    with pytest.raises(cellscan.ArgumentError, match="leave weights= out"):
        cellscan.Classifier(create("small_cnn", 2), weights="model.safetensors")
    assert find("vgg16").default_size == 224


@pytest.mark.filterwarnings("error")
def test_the_normalisation_of_a_foreign_file_is_read_or_said(tmp_path) -> None:
    path = write(tmp_path, published(create("resnet18", seed=1), "resnet18"))
    with pytest.warns(UserWarning, match=r"the normalisation of its images is unknown; .*0\.485.*config\.json"):
        assert create("resnet18", weights=path).normalization.mean[0] == 0.485
    config = '{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}'
    for text in (config, f'{{"pretrained_cfg": {config}}}'):
        (tmp_path / "config.json").write_text(text)
        assert cellscan.Classifier("resnet18", weights=path, image_size=32).card.normalization.mean == (0.5, 0.4, 0.3)
    for text in ("{", "[]", '{"mean": [0.5], "std": [0.2]}', '{"mean": [1, 2, 3], "std": [0, 1, 1]}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(cellscan.ModelFileError, match="no normalisation can be read"):
            create("resnet18", weights=path)
