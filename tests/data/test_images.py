"""Whatever holds an image becomes RGB uint8 by the stated rule, or is refused with a reason."""

import errno
import io
import struct

import numpy as np
import pytest
from helpers import random_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cellscan import DataError, ImageError
from cellscan.data import images
from cellscan.data.images import read_header, read_rgb


def test_rgb_array_is_itself() -> None:
    image = random_image()
    assert np.array_equal(read_rgb(image), image)


def test_grey_forms_agree() -> None:
    grey = random_image()[..., 0]
    want = np.repeat(grey[..., None], 3, -1)
    for form in (grey, grey[..., None], Image.fromarray(grey)):
        assert np.array_equal(read_rgb(form), want)


def test_sixteen_bits_scale_to_eight(tmp_path) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    want = np.array([0, 1, 128, 255])
    assert np.array_equal(read_rgb(values)[0, :, 0], want)
    Image.fromarray(values).save(tmp_path / "grey16.png")
    assert np.array_equal(read_rgb(tmp_path / "grey16.png")[0, :, 0], want)
    Image.fromarray(values).save(tmp_path / "grey16.tiff")
    assert np.array_equal(read_rgb(tmp_path / "grey16.tiff")[0, :, 0], want)


def test_transparent_pixels_lie_on_black() -> None:
    rgba = np.dstack([random_image(), np.zeros((40, 50), np.uint8)])
    rgba[:20, :, 3] = 255
    for form in (rgba, Image.fromarray(rgba)):
        out = read_rgb(form)
        assert np.array_equal(out[:20], rgba[:20, :, :3])
        assert not out[20:].any()


def test_palette_cmyk_and_one_bit(tmp_path) -> None:
    image = Image.fromarray(random_image())
    palette = image.quantize(16)
    assert np.array_equal(read_rgb(palette), np.asarray(palette.convert("RGB")))
    cmyk = image.convert("CMYK")
    cmyk.save(tmp_path / "cmyk.jpg", quality=95)
    opened = np.asarray(Image.open(tmp_path / "cmyk.jpg").convert("RGB"))
    assert np.array_equal(read_rgb(tmp_path / "cmyk.jpg"), opened)
    assert set(np.unique(read_rgb(image.convert("1")))) <= {0, 255}


def test_palette_with_transparency(tmp_path) -> None:
    palette = Image.fromarray(np.zeros((8, 8), np.uint8), "L").convert("P")
    palette.putpalette([200, 10, 10] + [0] * 765)
    palette.save(tmp_path / "p.png", transparency=0)
    assert not read_rgb(tmp_path / "p.png").any()


def test_exif_orientation_is_honoured(tmp_path) -> None:
    image = random_image(height=20, width=30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "turned.png"), np.rot90(image, -1))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
def test_a_header_has_the_size_of_the_decoded_image(tmp_path, suffix, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(random_image(height=20, width=32)).save(path, exif=exif)
    assert read_header(path)[:2] == read_rgb(path).shape[1::-1]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".gif", ".webp", ".avif", ".ppm"])
def test_formats(tmp_path, suffix) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save(path)
    assert np.abs(read_rgb(path).astype(int) - 120).max() <= 3


def test_floats_in_range() -> None:
    assert read_rgb(np.full((4, 4, 3), 0.5, np.float32))[0, 0, 0] == 128
    assert read_rgb(np.ones((4, 4)))[0, 0, 0] == 255


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4, 3), 255.0), r"expected values in \[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"expected values in \[0, 1\]"),
        (np.full((4, 4, 3), -0.1), r"expected values in \[0, 1\]"),
        (np.zeros((4, 4, 3), np.int64), "astype"),
        (np.zeros((4, 4, 3), bool), "astype"),
        (np.zeros((3, 40, 50), np.uint8), "transpose"),
        (np.zeros((4, 4, 2), np.uint8), r"expected \(H, W, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (np.array([["a"]]), "dtype"),
    ],
)
def test_bad_arrays_are_refused_with_the_fix(array, message) -> None:
    with pytest.raises(ImageError, match=message):
        read_rgb(array)


def test_bad_files_are_refused_with_path_and_reason(tmp_path) -> None:
    whole = io.BytesIO()
    Image.fromarray(random_image()).save(whole, "PNG")
    cases = {
        "empty.png": (b"", "0 bytes"),
        "text.png": (b"hello, this is text", "known format"),
        "cut.png": (whole.getvalue()[:200], "cannot be decoded"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=reason) as caught:
            read_rgb(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ImageError, match="no such file"):
        read_rgb(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="folder"):
        read_rgb(tmp_path)


def test_own_pixel_limit_and_pillows_is_untouched(tmp_path, monkeypatch) -> None:
    before = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(images, "PIXEL_LIMIT", 100)
    Image.fromarray(random_image()).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="the limit is 100"):
        read_rgb(tmp_path / "large.png")
    assert before == Image.MAX_IMAGE_PIXELS


def test_one_resize_rule_for_every_form(tmp_path) -> None:
    image = random_image(height=130, width=90)
    Image.fromarray(image).save(tmp_path / "a.png")
    want = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    for form in (image, Image.fromarray(image), tmp_path / "a.png"):
        assert np.array_equal(read_rgb(form, 64), want)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mutated_files_are_read_whole_or_refused(data) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"]))
    whole = io.BytesIO()
    Image.fromarray(random_image(height=16, width=16)).save(whole, kind)
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        try:
            out = read_rgb(io.BytesIO(bytes(content)), where="mutant")
        except ImageError as error:
            assert "mutant" in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert out.dtype == np.uint8
            assert out.shape[-1] == 3


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    whole = io.BytesIO()
    Image.fromarray(image).save(whole, kind)
    return whole.getvalue()


def test_encoded_bytes_and_open_files(tmp_path) -> None:
    image = random_image()
    data = encoded(image)
    (tmp_path / "a.png").write_bytes(data)
    read = io.BytesIO(data)
    read.read()  # as a web framework leaves an upload that it looked at
    for form in (data, bytearray(data), memoryview(data), io.BytesIO(data), read):
        assert np.array_equal(read_rgb(form), image)
    with open(tmp_path / "a.png", "rb") as file:
        assert np.array_equal(read_rgb(file), image)
    with open(tmp_path / "a.png", encoding="latin-1") as file, pytest.raises(ImageError, match='"rb"'):
        read_rgb(file)
    with pytest.raises(ImageError, match="0 bytes"):
        read_rgb(b"")
    with pytest.raises(ImageError, match="cannot be read"):
        read_rgb(file)  # closed

    class Upload:
        async def read(self) -> bytes:
            return data

    with pytest.raises(ImageError, match=r"\.file"):
        read_rgb(Upload())


def write_tiff(path, array: np.ndarray, bits: int, photometric: int = 1) -> None:
    """Write a TIFF with tags that Pillow itself does not write."""
    height, width = array.shape
    data = array.tobytes()
    entries = ((256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
               (273, 4, 8 + 2 + 12 * 9 + 4), (277, 3, 1), (278, 4, height), (279, 4, len(data)))  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 0) + data)


def test_where_zero_is_white(tmp_path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_tiff(tmp_path / "8.tif", values, 8, photometric=0)
    write_tiff(tmp_path / "16.tif", values.astype("<u2") * 257, 16, photometric=0)
    for name in ("8.tif", "16.tif"):
        assert np.array_equal(read_rgb(tmp_path / name)[..., 0], 255 - values), name
        with Image.open(tmp_path / name) as opened:
            assert np.array_equal(read_rgb(opened)[..., 0], 255 - values), name


def test_few_bits_in_many_are_refused_with_the_fix(tmp_path) -> None:
    grey = random_image()[..., 0]
    twelve = grey.astype(np.uint16) * 16
    Image.fromarray(twelve).save(tmp_path / "12.tif")
    Image.fromarray(twelve).save(tmp_path / "12.png")
    for form in (tmp_path / "12.tif", tmp_path / "12.png", twelve, twelve.astype(">u2"), Image.fromarray(twelve)):
        with pytest.raises(ImageError, match=r"array \* 16"):
            read_rgb(form)
    with pytest.raises(ImageError, match="uint8"):
        read_rgb(grey.astype(np.uint16))
    assert not read_rgb(np.zeros((4, 4), np.uint16)).any()  # black is black
    assert np.array_equal(read_rgb((twelve * 16).astype(">u2"))[..., 0], read_rgb(twelve * 16)[..., 0])


def test_twelve_bits_that_say_so_are_scaled(tmp_path) -> None:
    values = (np.arange(64, dtype=np.uint32) * 65).reshape(8, 8)
    first, second = values.ravel()[::2], values.ravel()[1::2]
    packed = np.stack([first >> 4, ((first & 15) << 4) | (second >> 8), second & 255], -1).astype(np.uint8)
    write_tiff(tmp_path / "12.tif", packed.reshape(1, -1), 12)
    content = bytearray((tmp_path / "12.tif").read_bytes())
    for tag, value in ((0, 8), (1, 8), (7, 8)):  # width, height and rows a strip are of the values
        content[10 + 12 * tag + 8 : 10 + 12 * tag + 12] = struct.pack("<I", value)
    (tmp_path / "12.tif").write_bytes(content)
    assert np.abs(read_rgb(tmp_path / "12.tif")[..., 0].astype(int) - values * 255 / 4095).max() <= 1


def test_sixteen_bits_a_colour_that_come_out_black_are_refused(tmp_path) -> None:
    import zlib

    def png(values: np.ndarray) -> bytes:
        height, width, _ = values.shape
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    image = random_image()
    assert np.array_equal(read_rgb(png(image.astype(np.uint16) * 257)), image)
    with pytest.raises(ImageError, match="would become black"):
        read_rgb(png(image.astype(np.uint16) * 16))


def test_pages_that_may_be_channels_are_refused(tmp_path) -> None:
    first, second = Image.fromarray(random_image(0)), Image.fromarray(random_image(1))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="2 pages of one size"):
        read_rgb(tmp_path / "stack.tif")
    with Image.open(tmp_path / "stack.tif") as opened:  # of an image that somebody opened, the page that it is at
        opened.seek(1)
        assert np.array_equal(read_rgb(opened), random_image(1))
    first.save(tmp_path / "preview.tif", save_all=True, append_images=[second.resize((10, 8))])
    assert np.array_equal(read_rgb(tmp_path / "preview.tif"), random_image(0))


def test_floats_that_miss_the_range_by_a_rounding() -> None:
    assert (read_rgb(np.full((4, 4, 3), 1.0000001)) == 255).all()
    assert not read_rgb(np.full((4, 4, 3), -1e-7)).any()


def test_a_batch_of_one_is_named() -> None:
    with pytest.raises(ImageError, match=r"batch of one: pass array\[0\]"):
        read_rgb(np.zeros((1, 40, 40, 3), np.uint8))


@pytest.mark.parametrize(("suffix", "kind"), [("jfif", "JPEG"), ("jpe", "JPEG"), ("pgm", "PPM"), ("dib", "DIB")])
def test_other_names_of_known_formats(tmp_path, suffix, kind) -> None:
    assert images.is_image_name(f"a.{suffix}")
    Image.fromarray(random_image()[..., 0]).save(tmp_path / f"a.{suffix}", kind)
    assert read_rgb(tmp_path / f"a.{suffix}").shape == (40, 50, 3)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_failures_of_the_machine_are_tried_again_and_are_not_the_images(tmp_path, monkeypatch, error) -> None:
    Image.fromarray(random_image()).save(tmp_path / "a.png")
    opened, left = Image.open, 1

    def failing(*args, **kwargs):
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return opened(*args, **kwargs)

    monkeypatch.setattr(Image, "open", failing)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), random_image())
    left = 10
    with pytest.raises(DataError, match="the machine failed"):
        read_rgb(tmp_path / "a.png")


def test_a_file_that_may_not_be_read_is_said(tmp_path, monkeypatch) -> None:
    Image.fromarray(random_image()).save(tmp_path / "a.png")

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Image, "open", refused)
    with pytest.raises(ImageError, match="Permission denied"):
        read_rgb(tmp_path / "a.png")


def test_linked_folders_are_followed_and_loops_are_not(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "a").mkdir(parents=True)
    for path in (tmp_path / "elsewhere" / "1.png", tmp_path / "set" / "a" / "2.png", tmp_path / "set" / "a" / "x.heic"):
        path.write_bytes(b"x")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    assert images.list_folder(tmp_path / "set") == (["a/2.png", "b/1.png"], ["a/x.heic"])


def test_links_across_folders_end(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(images, "LINK_LIMIT", 20)
    for here in range(8):
        (tmp_path / str(here)).mkdir()
        (tmp_path / str(here) / "1.png").write_bytes(b"x")
    assert len(images.list_folder(tmp_path)[0]) == 8
    for here in range(8):
        for there in range(8):
            (tmp_path / str(here) / f"to{there}").symlink_to(tmp_path / str(there))
    with pytest.raises(DataError, match="more than 20 paths lead to this folder"):
        images.list_folder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch) -> None:
    import os

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match="Permission denied"):
        images.list_folder(tmp_path)
