"""Whatever holds images gives them one by one, as they were when they were given."""

import io
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import random_image, write_cells
from PIL import Image, ImageSequence

import cellscan
from cellscan.data.images import read_rgb
from cellscan.data.inputs import decode, list_items

IMAGES = [random_image(seed) for seed in range(40)]


def decoded(images, size=16) -> list:
    items, total = list_items(images)
    found = list(decode(items, size))
    assert total in (None, len(found))
    assert [item.index for item, _ in found] == list(range(len(found)))
    return [image for _, image in found]


def names(images) -> list[str]:
    return [item.name for item in list_items(images)[0]]


def encoded(image: np.ndarray) -> bytes:
    whole = io.BytesIO()
    Image.fromarray(image).save(whole, "PNG")
    return whole.getvalue()


def want(images=IMAGES) -> list[np.ndarray]:
    return [read_rgb(image, 16) for image in images]


def reused_array():
    buffer = np.zeros_like(IMAGES[0])
    for image in IMAGES:
        buffer[:] = image
        yield buffer


def reused_bytes():
    for image in IMAGES:
        yield (buffer := bytearray(encoded(image)))
        buffer[:] = b""


def reused_file():
    file = io.BytesIO()
    for image in IMAGES:
        file.seek(0)
        file.truncate()
        file.write(encoded(image))
        yield file


def reused_pillow():
    canvas = Image.new("RGB", (50, 40))
    for image in IMAGES:
        canvas.paste(Image.fromarray(image))
        yield canvas


def closed_pillow():
    for image in IMAGES:
        with Image.open(io.BytesIO(encoded(image))) as opened:
            yield opened


@pytest.mark.parametrize("camera", [reused_array, reused_bytes, reused_file, reused_pillow, closed_pillow])
def test_images_are_taken_before_the_next_is_asked_for(camera) -> None:
    assert np.array_equal(decoded(camera()), want())


def test_one_file_written_again_and_again(tmp_path) -> None:
    def camera():
        for image in IMAGES:
            (tmp_path / "frame.png").write_bytes(encoded(image))
            yield tmp_path / "frame.png"

    assert np.array_equal(decoded(camera()), want())


def test_frames_of_an_animation(tmp_path) -> None:
    frames = [Image.new("RGB", (50, 40), (10 * k, 0, 0)) for k in range(20)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.png") as opened:
        found = decoded(ImageSequence.Iterator(opened))
    assert [int(image[0, 0, 0]) for image in found] == [10 * k for k in range(20)]


def test_what_is_given_may_be_changed_while_results_are_used() -> None:
    given = [image.copy() for image in IMAGES]
    items, _ = list_items(given)
    found = []
    for item, image in decode(items, 16):
        found.append(image)
        for later in given[item.index : item.index + 16]:
            later[:] = 0
        if item.index == 0:
            break
    assert np.array_equal(found[0], want()[0])


def test_forms_of_one_image(tmp_path) -> None:
    image, data = IMAGES[0], encoded(IMAGES[0])
    (tmp_path / "a.png").write_bytes(data)
    cell = cellscan.CellDataset.from_arrays([image], [0], names=["cell_7"])[0]
    with open(tmp_path / "a.png", "rb") as file:
        forms = (
            image, data, bytearray(data), memoryview(data), io.BytesIO(data), file, str(tmp_path / "a.png"),
            tmp_path / "a.png", Image.fromarray(image), cell, image.astype(np.float32) / 255,
            np.array(str(tmp_path / "a.png")),
        )  # fmt: skip
        for form in forms:
            assert np.array_equal(decoded(form), want(IMAGES[:1])), type(form)
        assert names(file) == [str(tmp_path / "a.png")]
    assert names(cell) == ["cell_7"]
    assert names(data) == ["image 0"]


def test_forms_of_many_images(tmp_path) -> None:
    paths = []
    for number, image in enumerate(IMAGES[:3]):
        paths.append(str(tmp_path / f"{number}.png"))
        Path(paths[-1]).write_bytes(encoded(image))
    cells = cellscan.CellDataset.from_arrays(IMAGES[:3], [0, 1, 0], names=["a", "b", "c"])
    mixed = np.empty(3, object)
    mixed[:] = [encoded(IMAGES[0]), Image.fromarray(IMAGES[1]), paths[2]]
    forms = (
        paths, np.array(paths), np.array([p.encode() for p in paths]), pandas.Series(paths),
        pandas.Series(paths, dtype="string"), (Path(p) for p in paths), tmp_path.glob("*.png"), mixed,
        np.stack(IMAGES[:3]), list(cells), iter(cells),
        [encoded(image) for image in IMAGES[:3]], [io.BytesIO(encoded(image)) for image in IMAGES[:3]], tmp_path,
    )  # fmt: skip
    for form in forms:
        if form is forms[6]:
            form = iter(sorted(form))
        assert np.array_equal(decoded(form), want(IMAGES[:3])), type(form)
    assert names(np.array(paths)) == names(pandas.Series(paths)) == paths
    assert names(list(cells)) == ["a", "b", "c"]


@pytest.mark.parametrize("bad", [3, {"a": 1}, None, 2.5, object()])
def test_what_holds_no_images(bad) -> None:
    with pytest.raises(cellscan.ArgumentError, match="expected a path, a folder"):
        list_items(bad)


def test_single_images_that_are_none_are_named(tmp_path) -> None:
    class Foreign:
        ndim = 3

        def __array__(self, dtype=None, copy=None):
            raise TypeError("it is on another device")

    bad = [None, 3, float("nan"), pandas.NA, b"", b"text", np.zeros((1, 8, 8, 3), np.uint8), "absent.png", tmp_path,
           io.StringIO("text"), Foreign(), {"a": 1}, IMAGES, np.array(["a"])]  # fmt: skip
    found = decoded([IMAGES[0], *bad, IMAGES[1]])
    assert np.array_equal([found[0], found[-1]], want(IMAGES[:2]))
    for number, error in enumerate(found[1:-1], 1):
        assert isinstance(error, cellscan.ImageError)
        assert any(name in str(error) for name in (f"image {number}", "absent.png", str(tmp_path))), str(error)
    for one in (b"text", io.BytesIO(b""), io.StringIO("text")):
        (error,) = decoded(one)
        assert isinstance(error, cellscan.ImageError)
    with pytest.raises(cellscan.ArgumentError, match="another device"):
        list_items(Foreign())


def test_files_that_are_not_read_are_named(tmp_path) -> None:
    write_cells(tmp_path, {"x": ["1.png", "2.jfif"]})
    (tmp_path / "x" / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"1 file is not read: x/IMG_1.HEIC"):
        assert names(tmp_path) == ["x/1.png", "x/2.jfif"]


def test_a_machine_that_fails_is_no_bad_image(tmp_path, monkeypatch) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(encoded(IMAGES[0]))

    def failing(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Image, "open", failing)
    with pytest.raises(cellscan.DataError, match="the machine failed"):
        decoded(paths)
