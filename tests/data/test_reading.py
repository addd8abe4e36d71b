"""Pages, channels and windows: stated once, and the same however an image comes; slides are refused."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import random_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

import cellscan
from cellscan import ArgumentError, ImageError, MissingExtraError, Reading
from cellscan.data.images import read_header, read_rgb

tifffile = pytest.importorskip("tifffile")
TWELVE = Reading(window=(0, 4095))


def grey(seed: int, most: int = 4095) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, (12, 10)).astype(np.uint16)


@pytest.mark.parametrize(
    "stated",
    [
        {"page": -1}, {"page": 1.0}, {"channel": True}, {"channel": "DAPI"}, {"window": (5, 5)}, {"window": (9, 1)},
        {"window": 4095}, {"window": (0, 1, 2)}, {"window": ("a", "b")}, {"window": (0, float("nan"))},
        {"window": (0, float("inf"))},
    ],
)  # fmt: skip
def test_what_is_no_reading(stated) -> None:
    with pytest.raises(ArgumentError, match=next(iter(stated))):
        Reading(**stated)


def test_a_reading_is_one_value() -> None:
    assert Reading(window=(0, 4095)) == Reading(window=[0.0, np.int64(4095)])  # type: ignore[arg-type]
    assert len({Reading(page=np.int64(1)), Reading(page=1)}) == 1  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="reading is"):
        cellscan.CellDataset.from_arrays([random_image()], [0], reading=(0, 4095))  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(low=st.integers(-10, 60000), span=st.integers(1, 70000), seed=st.integers(0, 99))
def test_a_window_is_a_clipped_line(low, span, seed) -> None:
    values = grey(seed, 65535)
    got = read_rgb(values, reading=Reading(window=(low, low + span)))[..., 0].astype(int)
    want = np.clip((values.astype(float) - low) / span, 0, 1) * 255
    assert np.abs(got - want).max() <= 0.5 + 1e-6
    assert (got[values <= low] == 0).all()
    assert (got[values >= low + span] == 255).all()


def test_the_whole_range_as_a_window_is_no_window() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(read_rgb(values), read_rgb(values, reading=Reading(window=(0, 65535))))


def test_one_image_has_the_same_pixels_however_it_comes(tmp_path) -> None:
    values = grey(1)
    want = np.floor(values * (255 / 4095) + 0.5).astype(np.uint8)
    folder = tmp_path / "d" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(values).save(folder / "1.tif")
    Image.fromarray(values).save(folder / "2.png")
    tifffile.imwrite(folder / "3.tif", values, compression="zlib")
    tifffile.imwrite(folder / "4.tif", values.astype(np.float32))
    tifffile.imwrite(folder / "5.tif", values.astype(">u2"), byteorder=">")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive, tarfile.open(tmp_path / "d.tgz", "w:gz") as tar:
        for file in folder.iterdir():
            archive.write(file, f"a/{file.name}")
            tar.add(file, f"a/{file.name}")
    table = {"path": [f"a/{k}.tif" for k in (1, 3, 4, 5)], "label": ["x"] * 4}
    sets = [cellscan.load_folder(tmp_path / name, reading=TWELVE) for name in ("d", "d.zip", "d.tgz")]
    sets.append(cellscan.load_table(table, tmp_path / "d", reading=TWELVE))
    sets.append(cellscan.CellDataset.from_arrays([values, values.astype(int), values / 1.0], [0, 0, 0], reading=TWELVE))
    for cells in sets:
        for cell in cells:
            assert np.array_equal(cell.image[..., 0], want), cell.name
    assert len({cells.fingerprint() for cells in sets[:3]}) == 1
    other = cellscan.load_folder(tmp_path / "d", reading=Reading(window=(0, 4096)))
    assert other.fingerprint() != sets[0].fingerprint()
    assert other.hash() != sets[0].hash()
    assert not np.array_equal(other.images(8)[:], sets[0].images(8)[:])
    assert sets[0].describe().formats == {"PNG": 1, "TIFF": 4}
    with pytest.raises(ImageError, match=r"Reading\(window=\(0, 4095\)\)"):
        _ = cellscan.load_folder(tmp_path / "d")[0].image


def test_predictions_read_alike(tmp_path) -> None:
    values = grey(2)
    Image.fromarray(values).save(tmp_path / "1.tif")
    clf = cellscan.Classifier(image_size=16, seed=0)
    want = clf.predict_proba(read_rgb(values, reading=TWELVE))
    opened = Image.open(tmp_path / "1.tif")
    whole = (tmp_path / "1.tif").read_bytes()
    for form in (
        values,
        values[None, ..., None],
        tmp_path / "1.tif",
        tmp_path,
        whole,
        opened,
        [whole, str(tmp_path / "1.tif")],
    ):
        assert np.allclose(clf.predict_proba(form, reading=TWELVE)[-1:], want, atol=1e-6)
    assert np.array_equal(clf.predict(values, reading=TWELVE).probabilities, want)
    assert np.array_equal(clf.embed(values, reading=TWELVE), clf.embed(tmp_path / "1.tif", reading=TWELVE))
    cells = cellscan.load_table({"path": ["1.tif"], "label": ["parasitized"]}, tmp_path, reading=TWELVE)
    assert np.allclose(clf.predict_proba(cells), want, atol=1e-6)
    for read in (cells, cells[0], cells.images(16)):
        with pytest.raises(ArgumentError, match="was read when it was loaded"):
            clf.predict(read, reading=TWELVE)
    failed = clf.predict([random_image(), values], reading=TWELVE, on_error="skip").failed
    assert "8 bits, which need none" in failed[0].reason
    why = clf.explain(values, method="gradcam", label="parasitized", reading=TWELVE, progress=False)
    assert np.array_equal(why[0].image, read_rgb(values, reading=TWELVE))


def test_windows_where_zero_is_white_and_of_packed_bits(tmp_path) -> None:
    values = grey(3, 65535)
    tifffile.imwrite(tmp_path / "w.tif", values, photometric="miniswhite")
    got = read_rgb(tmp_path / "w.tif", reading=Reading(window=(1000, 50000)))
    assert np.array_equal(got, 255 - read_rgb(values, reading=Reading(window=(1000, 50000))))
    for odd in (random_image(), np.zeros((4, 4), bool), np.full((4, 4), np.nan)):
        with pytest.raises(ImageError):
            read_rgb(odd, reading=TWELVE)
    Image.fromarray(random_image()).save(tmp_path / "8.png")
    with pytest.raises(ImageError, match="8 bits, which need none"):
        read_rgb(tmp_path / "8.png", reading=TWELVE)


def test_colours_of_sixteen_bits(tmp_path) -> None:
    values = np.stack([grey(1), grey(2), grey(3)], -1)
    want = read_rgb(values, reading=TWELVE)
    for planar in ("contig", "separate"):
        stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
        tifffile.imwrite(tmp_path / "c.tif", stored, photometric="rgb", planarconfig=planar)
        assert np.array_equal(read_rgb(tmp_path / "c.tif", reading=TWELVE), want)
        assert np.array_equal(read_rgb((tmp_path / "c.tif").read_bytes(), reading=TWELVE), want)
        tifffile.imwrite(tmp_path / "c.tif", stored * 16, photometric="rgb", planarconfig=planar)
        assert np.abs(read_rgb(tmp_path / "c.tif").astype(int) - (values // 16)).max() <= 1
    with Image.open(tmp_path / "c.tif") as opened, pytest.raises(ImageError, match="pass its path"):
        read_rgb(opened)


def test_a_turned_page_is_the_right_way_up_whoever_decodes_it(tmp_path) -> None:
    five = np.random.default_rng(0).integers(0, 256, (12, 10, 5), dtype=np.uint8)
    turned = five[..., 3]
    turns = {1: turned, 2: turned[:, ::-1], 3: turned[::-1, ::-1], 4: turned[::-1], 5: turned.T, 6: turned[::-1].T,
             7: turned[::-1, ::-1].T, 8: turned[:, ::-1].T}  # fmt: skip
    for orientation in range(1, 9):
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / "5.tif", five, photometric="minisblack", planarconfig="contig", extratags=tags)
        tifffile.imwrite(tmp_path / "1.tif", five[..., 3], photometric="minisblack", extratags=tags)
        assert np.array_equal(read_rgb(tmp_path / "5.tif", reading=Reading(channel=3))[..., 0], turns[orientation])
        for form in (tmp_path / "1.tif", (tmp_path / "1.tif").read_bytes(), Image.open(tmp_path / "1.tif")):
            assert np.array_equal(read_rgb(form)[..., 0], turns[orientation]), orientation


def test_plain_stacks_by_page(tmp_path) -> None:
    pages = [Image.fromarray(random_image(k)) for k in range(3)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    for form in (tmp_path / "s.tif", (tmp_path / "s.tif").read_bytes()):
        for k in range(3):
            assert np.array_equal(read_rgb(form, reading=Reading(page=k)), random_image(k))
        with pytest.raises(ImageError, match="no page 3; the file has 3"):
            read_rgb(form, reading=Reading(page=3))
        with pytest.raises(ImageError, match=r"3 pages of one size.*Reading\(page=0\)"):
            read_rgb(form)
        with pytest.raises(ImageError, match="not marked as channels"):
            read_rgb(form, reading=Reading(channel=0))
    green = read_rgb(tmp_path / "s.tif", reading=Reading(page=1, channel=1))
    assert np.array_equal(green, np.repeat(random_image(1)[..., 1:2], 3, -1))
    Image.fromarray(random_image()).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png", reading=Reading(page=0)), random_image())
    with pytest.raises(ImageError, match="only a TIFF has pages"):
        read_rgb(tmp_path / "a.png", reading=Reading(page=1))
    with pytest.raises(ImageError, match=r"array\[page\]"):
        read_rgb(random_image(), reading=Reading(page=0))
    with pytest.raises(ImageError, match="seek"):
        read_rgb(pages[0], reading=Reading(page=0))


def test_channels_of_one_page(tmp_path) -> None:
    image = random_image()
    Image.fromarray(image).save(tmp_path / "a.png")
    for form in (image, Image.fromarray(image), tmp_path / "a.png"):
        assert np.array_equal(read_rgb(form, reading=Reading(channel=2))[..., 0], image[..., 2])
        with pytest.raises(ImageError, match="no channel 3; the image has 3"):
            read_rgb(form, reading=Reading(channel=3))
    five = np.random.default_rng(0).integers(0, 256, (12, 10, 5), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "5.tif", five, photometric="minisblack", planarconfig="contig")
    for form in (five, tmp_path / "5.tif"):
        assert np.array_equal(read_rgb(form, reading=Reading(channel=4))[..., 1], five[..., 4])
        with pytest.raises(ImageError, match=r"one of the 5 channels: reading=cellscan.Reading\(channel=0\)"):
            read_rgb(form)


STACK = np.random.default_rng(7).integers(0, 4096, (2, 3, 4, 12, 10)).astype(np.uint16)  # T, C, Z


@pytest.mark.parametrize("order", ["TCZYX", "TZCYX", "ZCTYX", "CZTYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_tiffs_by_page_and_channel(tmp_path, order, compression) -> None:
    stored = STACK.transpose(["TCZYX".index(axis) for axis in order])
    file = tmp_path / "s.ome.tif"
    tifffile.imwrite(
        file, stored, ome=True, photometric="minisblack", compression=compression, metadata={"axes": order}
    )
    other = [axis for axis in order if axis in "TZ"]
    sizes = {"T": 2, "Z": 4}
    for page, channel in ((0, 0), (5, 2), (7, 1)):
        at = dict(zip(other, np.unravel_index(page, [sizes[axis] for axis in other]), strict=True))
        want = STACK[at["T"], channel, at["Z"]]
        for form in (file, file.read_bytes()):
            got = read_rgb(form, reading=Reading(page=page, channel=channel, window=(0, 4095)))
            assert np.array_equal(got, read_rgb(want, reading=TWELVE)), (order, page, channel)
    with pytest.raises(ImageError, match=r"stack of 3 channels and 8 pictures .*Reading\(page=0\)"):
        read_rgb(file, reading=Reading(channel=0))
    with pytest.raises(ImageError, match=r"Reading\(channel=0\)"):
        read_rgb(file, reading=Reading(page=0))
    with pytest.raises(ImageError, match="no channel 3"):
        read_rgb(file, reading=Reading(page=0, channel=3))
    with pytest.raises(ImageError, match="no page 8"):
        read_rgb(file, reading=Reading(page=8, channel=0))
    with pytest.raises(ImageError, match="24 pages of one size"):
        read_rgb(file)


def test_a_set_of_ome_tiffs_in_an_archive(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for k, kind in enumerate("ab"):
            whole = io.BytesIO()
            tifffile.imwrite(whole, STACK[k, :, 0], ome=True, photometric="minisblack", metadata={"axes": "CYX"})
            archive.writestr(f"{kind}/1.ome.tif", whole.getvalue())
    cells = cellscan.load_folder(tmp_path / "d.zip", reading=Reading(channel=1, window=(0, 4095)))
    assert np.array_equal(cells[1].image, read_rgb(STACK[1, 1, 0], reading=TWELVE))
    assert (cells.describe().formats, cells.images(8).shape) == ({"TIFF": 2}, (2, 8, 8, 3))


@pytest.mark.parametrize("contiguous", [True, False])
def test_stacks_of_imagej(tmp_path, contiguous) -> None:
    stack = np.moveaxis(STACK[:, :, :2], 1, 2)  # T, Z, C
    with tifffile.TiffWriter(tmp_path / "j.tif", imagej=True) as writer:
        writer.write(stack, metadata={"axes": "TZCYX"}, contiguous=contiguous)
    got = read_rgb(tmp_path / "j.tif", reading=Reading(page=3, channel=2, window=(0, 4095)))
    assert np.array_equal(got, read_rgb(STACK[1, 2, 1], reading=TWELVE))
    with pytest.raises(ImageError, match="12 pages of one size"):
        read_rgb(tmp_path / "j.tif")


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch) -> None:
    tifffile.imwrite(
        tmp_path / "s.ome.tif", STACK[0, :, 0], ome=True, photometric="minisblack", metadata={"axes": "CYX"}
    )
    five = np.zeros((12, 10, 5), np.uint8)
    tifffile.imwrite(tmp_path / "5.tif", five, photometric="minisblack", planarconfig="contig")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for name in ("s.ome.tif", "5.tif"):
        with pytest.raises(MissingExtraError, match=r"pip install 'cellscan\[tiff\]'"):
            read_rgb(tmp_path / name, reading=Reading(channel=1))
    with pytest.raises(ImageError):
        read_rgb(tmp_path / "5.tif")
    Image.fromarray(random_image()).save(
        tmp_path / "plain.tif", save_all=True, append_images=[Image.new("RGB", (50, 40))]
    )
    assert np.array_equal(read_rgb(tmp_path / "plain.tif", reading=Reading(page=0)), random_image())  # Pillow serves


def pyramid(path: Path, description: str, *, tile: tuple[int, int] | None = (16, 16), sub: int = 0) -> Path:
    levels = [random_image(1, 64, 64), random_image(2, 32, 32), random_image(3, 16, 16)]
    with tifffile.TiffWriter(path) as writer:
        writer.write(levels[0], tile=tile, photometric="rgb", description=description, metadata=None, subifds=sub)
        for level in levels[1 : 1 + (sub or 2)]:
            writer.write(level, tile=tile, photometric="rgb", metadata=None, subfiletype=1)
    return path


def test_slides_are_refused_with_the_tool(tmp_path) -> None:
    slides = [
        pyramid(tmp_path / "a.svs", "Aperio Image Library v12\n64x64", tile=None),
        pyramid(tmp_path / "a.tif", "Aperio Image Library v12\n64x64"), pyramid(tmp_path / "p.tif", ""),
        pyramid(tmp_path / "s.tif", "", sub=2),
    ]  # fmt: skip
    for file in slides:
        for reading in (Reading(), Reading(page=1)):
            with pytest.raises(ImageError, match=r"whole slide.*openslide"):
                read_rgb(file, reading=reading)
    whole = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[65420] = 1
    tags.tagtype[65420] = 4
    Image.fromarray(random_image()).save(whole, "TIFF", tiffinfo=tags)
    with pytest.raises(ImageError, match="whole slide"):
        read_rgb(whole.getvalue())
    for name, tool in (("x.mrxs", "openslide"), ("x.ndpi", "openslide"), ("x.czi", "bioio")):
        (tmp_path / name).write_bytes(b"\xff\xd8 or anything")
        with pytest.raises(ImageError, match=tool):
            read_rgb(tmp_path / name)
    clf = cellscan.Classifier(image_size=16, seed=0)
    assert "openslide" in clf.predict([slides[0], random_image()], on_error="skip").failed[0].reason
    (tmp_path / "d" / "c").mkdir(parents=True)
    Image.fromarray(random_image()).save(tmp_path / "d" / "c" / "1.png")
    pyramid(tmp_path / "d" / "c" / "a.svs", "Aperio")
    with pytest.warns(UserWarning, match=r"not read: c/a.svs.*whole slide"):
        cellscan.load_folder(tmp_path / "d")


def test_tiled_images_and_previews_are_no_slides(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "crop.tif", random_image(), photometric="rgb", description="Aperio crop", metadata=None)
    assert np.array_equal(read_rgb(tmp_path / "crop.tif"), random_image())
    tifffile.imwrite(tmp_path / "t.tif", random_image(1, 64, 64), tile=(16, 16), photometric="rgb")
    assert np.array_equal(read_rgb(tmp_path / "t.tif"), random_image(1, 64, 64))
    assert read_header(tmp_path / "t.tif") == (64, 64, "TIFF")
    pyramid(tmp_path / "preview.tif", "", tile=None)
    assert np.array_equal(read_rgb(tmp_path / "preview.tif"), random_image(1, 64, 64))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_stacks_are_read_or_refused(data) -> None:
    whole = io.BytesIO()
    tifffile.imwrite(whole, STACK[0, :, 0], ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.one_of(st.integers(0, 700), st.integers(0, len(content) - 1)))
        content[at] = data.draw(st.integers(0, 255))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            out = read_rgb(bytes(content), where="mutant", reading=Reading(channel=1, window=(0, 4095)))
        except (ImageError, MissingExtraError) as error:
            assert "mutant" in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert (out.dtype, out.shape[-1]) == (np.uint8, 3)


def test_a_page_that_breaks_off_is_not_filled_with_zeros(tmp_path) -> None:
    five = np.full((64, 64, 5), 200, np.uint8)
    tifffile.imwrite(tmp_path / "5.tif", five, photometric="minisblack", planarconfig="contig", rowsperstrip=8)
    whole = (tmp_path / "5.tif").read_bytes()
    assert (read_rgb(whole, reading=Reading(channel=0)) == 200).all()
    with pytest.raises(ImageError, match="lacks parts of this page"):
        read_rgb(whole[:-1000], reading=Reading(channel=0))


def test_sizes_are_bounded_before_tifffile_decodes(tmp_path, monkeypatch) -> None:
    tifffile.imwrite(
        tmp_path / "5.tif", np.zeros((12, 10, 5), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    monkeypatch.setattr("cellscan.data.images.PIXEL_LIMIT", 500)
    with pytest.raises(ImageError, match="the limit is 500"):
        read_rgb(tmp_path / "5.tif", reading=Reading(channel=0))
