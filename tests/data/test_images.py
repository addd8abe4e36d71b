"""Whatever holds an image becomes RGB uint8 by the stated rule, or is refused with a reason."""

import io

import numpy as np
import pytest
from helpers import random_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cellscan import ImageError
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
