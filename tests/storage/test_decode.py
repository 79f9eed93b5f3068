from __future__ import annotations

import io
import struct
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin

from storage.decode import Decoded, DecodeOptions, Rejected, decode
from storage.sources.headers import dimensions, size_hint
from tests.storage.pictures import bomb, encode, gradient


def pixels(data: bytes | NDArray[Any], colour: str = "rgb", **options: Any) -> NDArray[np.uint8]:
    result = decode(data, colour=colour, **options)  # type: ignore[arg-type]
    assert isinstance(result, Decoded), result
    assert result.pixels.dtype == np.uint8
    assert result.pixels.flags.c_contiguous
    return result.pixels


def reason(data: bytes | NDArray[Any], **options: Any) -> str:
    result = decode(data, colour="rgb", **options)
    assert isinstance(result, Rejected), result
    return result.reason


def test_colour_is_channels_first() -> None:
    image = gradient()
    assert np.array_equal(pixels(encode(image)), image.transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_lossless_formats_keep_every_pixel(format: str) -> None:
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    image = gradient(40, 44)
    assert np.array_equal(pixels(encode(image, format, **options)), image.transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_header_states_the_size(format: str, channels: int) -> None:
    data = encode(gradient(24, 20, channels), format)
    known = dimensions(data)
    assert known is None or known[:2] == (20, 24)
    assert (known is None) == (format in ("TIFF", "PPM"))
    stored_as_colour = format in ("GIF", "BMP", "WEBP")
    expected = 20 * 24 * (3 if stored_as_colour else channels)
    assert size_hint(io.BytesIO(data)) == expected


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}]
)
def test_header_of_every_webp_variant(options: dict[str, Any]) -> None:
    assert dimensions(encode(gradient(24, 20), "WEBP", **options)) == (20, 24, 3)


def test_jpeg_header_behind_long_metadata() -> None:
    data = encode(gradient(16, 16), "JPEG", icc_profile=bytes(70_000))
    assert dimensions(data[:4096]) is None
    assert dimensions(data) == (16, 16, 3)
    assert size_hint(io.BytesIO(data)) == 16 * 16 * 3


def test_grey_is_repeated_or_kept() -> None:
    image = gradient(channels=1)
    assert np.array_equal(pixels(encode(image)), np.stack([image] * 3))
    assert np.array_equal(pixels(encode(image), "keep"), image[None])
    assert np.array_equal(pixels(encode(image), "grey"), image[None])


def test_colour_to_grey_is_luma() -> None:
    red = encode(Image.new("RGB", (4, 4), (255, 0, 0)))
    assert pixels(red, "grey").shape == (1, 4, 4)
    assert pixels(red, "grey")[0, 0, 0] == 76  # 0.299 * 255
    assert pixels(red, "keep").shape == (3, 4, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    upright = gradient(6, 9, 1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(np.ascontiguousarray(stored), format, exif=exif)
    assert np.array_equal(pixels(data, "keep"), upright[None])


def test_broken_exif_is_no_orientation() -> None:
    image = gradient(16, 16, 1)
    data = encode(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pixels(data, "keep").shape == (1, 16, 16)


def test_palette_becomes_colour() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert pixels(encode(image), "keep")[:, 0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(format: str) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((0, 0), 0)
    found = pixels(encode(image, format, transparency=0))
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 1, 1].tolist() == [200, 100, 50]


def test_partly_transparent_palette() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0])
    found = pixels(encode(image, transparency=bytes([128])))
    assert abs(int(found[0, 0, 0]) - 127) <= 1


def test_alpha_is_laid_over_white() -> None:
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0] = (10, 20, 30, 255)
    image[0, 1] = (10, 20, 30, 0)
    image[1, 0] = (0, 0, 0, 51)
    found = pixels(encode(image))
    assert found[:, 0, 0].tolist() == [10, 20, 30]
    assert found[:, 0, 1].tolist() == [255, 255, 255]
    assert found[:, 1, 0].tolist() == [204, 204, 204]
    assert np.array_equal(pixels(image), found)


def test_grey_with_alpha_stays_grey() -> None:
    image = Image.new("LA", (3, 3), (90, 255))
    image.putpixel((1, 1), (90, 0))
    found = pixels(encode(image), "keep")
    assert found.shape == (1, 3, 3)
    assert (found[0, 0, 0], found[0, 1, 1]) == (90, 255)


def test_transparent_colour_of_a_grey_png() -> None:
    image = Image.new("L", (3, 3), 90)
    image.putpixel((1, 1), 7)
    found = pixels(encode(image, transparency=7), "keep")
    assert (found[0, 0, 0], found[0, 1, 1]) == (90, 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32_896, 65_535]], np.uint16)
    found = pixels(encode(values, format), "keep")
    assert found.tolist() == [[[0, 0, 1, 1, 128, 255]]]
    assert np.array_equal(pixels(values, "keep"), found)


def test_integers_out_of_range_are_rejected() -> None:
    values = np.array([[0, 70_000]], np.int32)
    assert "expected 0 to 65,535, got 0 to 70,000" in reason(encode(values, "TIFF"))
    assert "got -1 to 5" in reason(encode(np.array([[-1, 5]], np.int32), "TIFF"))


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (9, 2), 0)
    image.putpixel((3, 1), 1)
    found = pixels(encode(image), "keep")
    assert found.shape == (1, 2, 9)
    assert set(found.ravel().tolist()) == {0, 255}
    assert found[0, 1, 3] == 255


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format: str) -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    found = pixels(encode(cyan, format), "keep")[:, 4, 4].astype(int)
    assert np.abs(found - [0, 255, 255]).max() <= 3


def test_float_tiff() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert pixels(encode(values, "TIFF"), "keep").tolist() == [[[0, 128, 255]]]


def test_nan_and_range_of_floats() -> None:
    values = np.array([[0.0, np.nan]], np.float32)
    assert reason(encode(values, "TIFF")) == "has NaN in 1 values"
    large = np.array([[0.0, 255.0]], np.float32)
    assert reason(encode(large, "TIFF")).endswith("expected 0 to 1, got 0 to 255")
    infinite = np.array([[0.0, np.inf]])
    assert reason(infinite).endswith("expected 0 to 1, got 0 to inf")


def test_first_frame_counts() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for format in ("GIF", "TIFF", "PNG", "WEBP"):
        lossless = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
        assert pixels(data)[:, 0, 0].tolist() == [255, 0, 0], format


def test_resize_is_bicubic_with_antialiasing() -> None:
    image = gradient(64, 64)
    found = pixels(encode(image), resize=(16, 20))
    expected = Image.fromarray(image).resize((20, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))
    assert np.array_equal(pixels(encode(image), resize=(64, 64)), image.transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_rejected(format: str, share: float) -> None:
    rng = np.random.default_rng(0)
    data = encode(rng.integers(0, 256, (64, 64, 3), np.uint8), format)
    text = reason(data[: int(share * len(data))])
    assert text.startswith(("is truncated: ", "is damaged: ")), text
    if format in ("JPEG", "PNG", "BMP", "PPM", "GIF"):
        assert text.startswith("is truncated: "), text


@pytest.mark.parametrize("length", [3, 8, 20, 30])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_a_few_bytes_are_rejected(format: str, length: int) -> None:
    assert reason(encode(gradient(32, 32), format)[:length]).startswith("is ")


def test_damaged_png_is_rejected() -> None:
    data = bytearray(encode(gradient(32, 32)))
    data[60] ^= 0xFF
    assert reason(bytes(data)).startswith("is ")


def test_what_is_no_image() -> None:
    assert reason(b"") == "is empty: the file has 0 bytes"
    assert reason(b"this is a text, renamed to .jpg").startswith("is not an image")
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n").startswith("is not an image")
    assert reason(bytes(1000)).startswith("is not an image")


def test_sizes_are_judged_by_the_header() -> None:
    assert "decompression bomb" in reason(bomb(60_000, 60_000))
    assert "absurd size" in reason(bomb(70_000, 2))
    assert "has no area" in reason(bomb(0, 5))
    assert "has no area" in reason(np.zeros((0, 5, 3), np.uint8))
    assert "at most 95 pixels, got 12 x 8" in reason(encode(gradient()), max_pixels=95)
    assert pixels(encode(gradient()), max_pixels=96).shape == (3, 8, 12)


def test_no_warning_for_what_the_limit_allows() -> None:
    # Pillow itself would warn of more than 89 million pixels; the reason here is the missing data
    assert reason(bomb(10_000, 10_000)).startswith(("is truncated", "is damaged"))


def test_limits_of_other_threads_do_not_matter() -> None:
    data = encode(gradient())
    before = Image.MAX_IMAGE_PIXELS
    outcomes: list[type] = []

    def work(limit: int) -> None:
        for _ in range(50):
            outcomes.append(type(decode(data, colour="rgb", max_pixels=limit)))

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (95, 96)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(Rejected) == outcomes.count(Decoded) == 50
    assert before == Image.MAX_IMAGE_PIXELS


def test_large_text_in_a_png_is_rejected() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "x" * 70_000_000, zip=True)
    assert reason(encode(gradient(), pnginfo=text)).startswith("is damaged")


def test_arrays() -> None:
    image = gradient()
    assert np.array_equal(pixels(image), image.transpose(2, 0, 1))
    assert np.array_equal(pixels(image[..., :1], "keep"), image[..., 0][None])
    assert np.array_equal(pixels(image[..., 0] > 127, "keep")[0], (image[..., 0] > 127) * 255)
    assert np.array_equal(pixels(image / 255.0), image.transpose(2, 0, 1))
    assert "expected (h, w) or (h, w, 1..4)" in reason(np.zeros((2, 2, 5), np.uint8))
    assert "got int64" in reason(np.zeros((2, 2), np.int64))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="expected rgb, grey or keep, got 'bgr'"):
        decode(b"", colour="bgr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_pixels: expected at least 1"):
        DecodeOptions(max_pixels=0)
    with pytest.raises(ValueError, match=r"resize: expected \(height, width\)"):
        DecodeOptions(resize=(0, 4))


def test_truncated_files_must_not_be_patched_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="expected False, got True"):
        decode(encode(gradient()), colour="rgb")


def test_lack_of_memory_is_not_the_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError):
        decode(encode(gradient(), "PPM"), colour="rgb")


def test_jpeg_without_a_height_has_no_area() -> None:
    data = bytearray(encode(gradient(16, 16), "JPEG"))
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">H", data, frame + 5, 0)
    assert "has no area" in reason(bytes(data))
