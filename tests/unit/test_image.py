"""Any picture becomes (1, 3, H, W) in [-1, 1]; bad files say so in one line; files are whole."""

from __future__ import annotations

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jstyle.sd.files import atomic_write, writable_folder, write_json
from jstyle.sd.image import ImageError, grid, load, save_png, to_uint8
from jstyle.sd.picture_files import list_images
from jstyle.sd.targets import TargetError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(height=16, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def first_pixel(path):
    return tuple(int(v) for v in to_uint8(load(path))[0, 0, 0])


def test_pixels_survive_the_round_trip(tmp_path):
    pixels = picture()
    save_png(tmp_path / "a.png", pixels)
    x = load(tmp_path / "a.png")
    assert x.shape == (1, 3, 16, 24) and x.dtype == np.float32
    assert x.min() >= -1 and x.max() <= 1 and x.flags.c_contiguous
    np.testing.assert_array_equal(to_uint8(x)[0], pixels)


def test_black_is_minus_one_and_white_is_one(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.repeat(np.uint8([[0], [255]]), 8, 0).repeat(16, 1)))
    np.testing.assert_array_equal(np.unique(load(path)), [-1.0, 1.0])


def test_to_uint8_clamps_and_rounds():
    x = np.float32([-3.0, 7.0, 0.0, -0.997, -0.995, 1.0]).reshape(2, 3, 1, 1)
    assert to_uint8(x).reshape(2, 3).tolist() == [[0, 255, 128], [0, 1, 255]]


def test_values_that_are_not_finite_are_not_saved_as_black():
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(np.full((1, 3, 2, 2), np.nan, np.float32))


def test_without_a_size_the_centre_is_kept_down_to_the_multiple(tmp_path):
    pixels = picture(19, 30)
    save_png(tmp_path / "a.png", pixels)
    kept = to_uint8(load(tmp_path / "a.png"))[0]
    np.testing.assert_array_equal(kept, pixels[1:17, 3:27])
    assert load(tmp_path / "a.png", multiple=4).shape == (1, 3, 16, 28)


def test_a_size_crops_the_centre_to_the_aspect(tmp_path):
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:32], pixels[:, 32:] = RED, GREEN, BLUE
    save_png(tmp_path / "a.png", pixels)
    square = to_uint8(load(tmp_path / "a.png", 16))[0]
    assert square.shape == (16, 16, 3) and (square == GREEN).all()
    assert load(tmp_path / "a.png", (8, 32)).shape == (1, 3, 8, 32)
    assert load(tmp_path / "a.png", [64, 32]).shape == (1, 3, 64, 32)


@pytest.mark.parametrize("size_px", [0, -8, 100, (64, 33)])
def test_sizes_that_do_not_fit_are_refused(tmp_path, size_px):
    save_png(tmp_path / "a.png", picture())
    with pytest.raises(ValueError, match="size_px must be a positive multiple of 8, got"):
        load(tmp_path / "a.png", size_px)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_white_stays_white_in_every_mode(tmp_path, mode):
    name = "a.tif" if mode in ("CMYK", "YCbCr") else "a.png"
    image = Image.new("RGB", (16, 16), WHITE).convert("L" if mode == "LA" else "RGB").convert(mode)
    assert first_pixel(saved(tmp_path, image, name)) == WHITE


def test_grey_becomes_three_equal_channels(tmp_path):
    x = load(saved(tmp_path, Image.fromarray(picture()[..., 0])))
    np.testing.assert_array_equal(x[:, 0], x[:, 2])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, dtype):
    ramp = np.linspace(0, 65535, 256).round().astype(dtype).reshape(16, 16)
    path = saved(tmp_path, Image.fromarray(ramp), "a.png" if dtype is np.uint16 else "a.tif")
    np.testing.assert_array_equal(to_uint8(load(path))[0, ..., 0].ravel(), np.arange(256))


def test_float_pictures_span_zero_to_one(tmp_path):
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    path = saved(tmp_path, Image.fromarray(ramp), "a.tif")
    np.testing.assert_array_equal(to_uint8(load(path))[0, ..., 0].ravel(), np.arange(256))


def test_transparency_lies_on_white(tmp_path):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert first_pixel(saved(tmp_path, clear)) == WHITE
    half = Image.new("RGBA", (16, 16), (255, 0, 0, 127))
    assert first_pixel(saved(tmp_path, half)) == (255, 128, 128)
    assert first_pixel(saved(tmp_path, Image.new("LA", (16, 16), (0, 0)))) == WHITE


def test_a_transparent_palette_entry_lies_on_white(tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert first_pixel(saved(tmp_path, image)) == RED
    assert first_pixel(saved(tmp_path, image, "b.png", transparency=0)) == WHITE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    pixels = np.full((16, 24, 3), 255, np.uint8)
    pixels[:4, :8] = RED  # what a person must see: red at the top left
    upright = Image.fromarray(pixels)
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    if orientation in undo:
        upright = upright.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, upright, exif=exif)
    np.testing.assert_array_equal(to_uint8(load(path))[0], pixels)


def test_broken_metadata_does_not_spoil_good_pixels(tmp_path):
    image = Image.fromarray(picture())
    path = saved(tmp_path, image, "a.jpg", exif=b"Exif\x00\x00nonsense nonsense", quality=95)
    assert load(path).shape == (1, 3, 16, 24)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert first_pixel(path) == RED


@pytest.mark.parametrize("name, kept", [("a.png", 0.5), ("a.png", 0.9), ("a.jpg", 0.6)])
@pytest.mark.parametrize("suffix", [".png", ".dat"])
def test_truncated_files_are_named(tmp_path, name, kept, suffix):
    whole = saved(tmp_path, Image.fromarray(picture(64, 64)), name).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ImageError) as caught:
        load(cut)
    assert str(caught.value) == f"{cut}: is truncated"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
def test_no_cut_of_a_file_escapes_as_another_error(tmp_path, suffix):
    whole = saved(tmp_path, Image.fromarray(picture(32, 32)), f"a.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    refused = 0
    for size in range(0, int(len(whole) * 0.95), max(1, len(whole) // 60)):
        cut.write_bytes(whole[:size])
        try:
            load(cut)
        except ImageError as error:
            assert str(error).startswith(f"{cut}: ") and "\n" not in str(error)
            refused += 1
    assert refused >= 40


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    whole = bytearray(saved(tmp_path, Image.fromarray(picture(32, 32))).read_bytes())
    rng, bad = np.random.default_rng(0), tmp_path / "bad.png"
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(8, len(whole), 3):
            damaged[place] ^= 0x55
        bad.write_bytes(damaged)
        try:
            load(bad)
        except ImageError as error:
            assert "\n" not in str(error)


def test_bad_paths_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    cases = {"none.png": "no such file", ".": "is a folder, not an image file"}
    cases |= {"empty.png": "is empty", "text.png": "is not an image"}
    for name, reason in cases.items():
        with pytest.raises(ImageError) as caught:
            load(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {reason}"


def test_pictures_too_small_for_one_cell_are_refused_unless_resized(tmp_path):
    save_png(tmp_path / "a.png", picture(7, 9))
    with pytest.raises(ImageError, match="9 x 7 pixels are too few, at least 8 x 8"):
        load(tmp_path / "a.png")
    assert load(tmp_path / "a.png", 16).shape == (1, 3, 16, 16)


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    return head + struct.pack(">I", zlib.crc32(chunk)) + end


@pytest.mark.parametrize("width, height", [(30_000, 30_000), (20_000, 8_100)])
def test_decompression_bombs_are_refused(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    with pytest.raises(
        ImageError,
        match=r"is too large, \d+ x \d+ are more than 120000000 pixels.* JSTYLE_MAX_PIXELS",
    ):
        load(tmp_path / "bomb.png")


def test_pictures_without_pixels_are_refused(tmp_path):
    (tmp_path / "flat.png").write_bytes(png_header(0, 10))
    with pytest.raises(ImageError):
        load(tmp_path / "flat.png")


def test_images_are_listed_by_name_without_other_files(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.webp"]


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(ImageError, match="no images in this folder"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="no such folder"):
        list_images(tmp_path / "none")


def test_png_bytes_depend_on_the_pixels_and_metadata_alone(tmp_path):
    pixels = picture()
    save_png(tmp_path / "a.png", pixels, {"gamma": 0.75, "sites": ["é"]})
    save_png(tmp_path / "b.png", pixels, {"sites": ["é"], "gamma": 0.75})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.text["jstyle"]) == {"gamma": 0.75, "sites": ["é"]}


def test_only_uint8_pictures_are_saved(tmp_path):
    with pytest.raises(ValueError, match="expected uint8"):
        save_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.float32))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error):
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("half")
            assert part.parent == tmp_path and part.name.startswith(".")
            raise error
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_finished_write_replaces_and_leaves_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_raises_and_leaves_no_file(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="a.txt: disk full .No space left on device."):
        with atomic_write(tmp_path / "a.txt") as part:
            part.unlink()
            part.symlink_to("/dev/full")
            part.write_text("x" * 10)
    assert not os.listdir(tmp_path)


def test_folders_are_made_or_refused_in_one_line(tmp_path):
    assert writable_folder(tmp_path / "a" / "b").is_dir()
    assert not os.listdir(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(TargetError) as caught:
            writable_folder(bad)
        assert str(caught.value).startswith(f"{bad}: ") and "\n" not in str(caught.value)


def test_a_read_only_place_is_named():
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs a folder that even root cannot write")
    with pytest.raises(OSError, match="/proc/jstyle: cannot write here"):
        writable_folder("/proc/jstyle")


def test_a_grid_shows_every_image_once_and_its_labels():
    cells = [[picture(64, 48, seed) for seed in (1, 2)], [picture(64, 48, 3), None]]
    table = grid(cells, ["content", "a label far too long for its column"], ["row one", "row two"])
    sheet = np.asarray(table)
    for image in (cells[0][0], cells[0][1], cells[1][0]):
        corners = np.argwhere((sheet == image[0, 0]).all(-1))
        found = [
            (sheet[y : y + 64, x : x + 48] == image).all()
            for y, x in corners
            if y + 64 <= sheet.shape[0] and x + 48 <= sheet.shape[1]
        ]
        assert sum(found) == 1
    plain = np.asarray(grid(cells, ["", ""], ["", ""]))
    assert (sheet[:14] < 128).sum() > 50 and (plain[:14] < 128).sum() == 0


def test_grids_with_missing_labels_are_refused():
    with pytest.raises(ValueError, match="every row needs 2 images"):
        grid([[picture()]], ["a", "b"])
    with pytest.raises(ValueError, match="1 rows but 2 row labels"):
        grid([[picture()]], ["a"], ["x", "y"])
    with pytest.raises(ValueError, match="at least one image"):
        grid([[None]], ["a"])
