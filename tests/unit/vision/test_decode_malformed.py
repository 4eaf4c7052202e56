"""Malformed photos of every format give pixels or one short reason, in bounded memory and time."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pawcast.errors import ImageError
from pawcast.vision import decode
from tests.support.cases import case
from tests.support.decoders import decode_damaged, run
from tests.support.malformed import bmp, png, samples, save, tiff, with_exif, zeros

SAMPLES = samples()
TURNED = {"jpeg-exif", "jpeg-xmp", "png-exif-icc", "webp-exif", "tiff-exif", "avif-alpha-exif", "heic-exif"}
WIDE = 7071


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode.decode(data)
    return caught.value.what


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_kind_of_photo_decodes(kind):
    pixels = decode.decode(SAMPLES[kind])
    assert pixels.dtype == np.uint8
    assert pixels.shape == ((24, 18, 3) if kind in TURNED else (18, 24, 3))


@pytest.mark.parametrize(
    "kind",
    ["jpeg-progressive", "png-animated", "webp-animated", "gif-animated", "tiff-frames", "tiff-jpeg-old", "avif"],
)
def test_the_first_frame_is_the_photo(kind):
    exact = decode.decode(SAMPLES["png"]).astype(int)
    assert np.abs(decode.decode(SAMPLES[kind]) - exact).mean() < 30


def test_probe_and_decode_agree_on_thousands_of_damaged_photos():
    count, usable = decode_damaged(per_photo=60, seed=0)
    assert count >= 3_000
    assert 0.1 * count < usable < 0.9 * count


def test_photos_truncated_anywhere_give_pixels_or_a_reason():
    run("""
        limit_memory(96)
        for kind, photo in malformed.samples().items():
            for end in range(0, len(photo), max(1, len(photo) // 60)):
                decode(photo[:end])
    """)


def test_the_largest_photos_stay_within_the_documented_memory():
    """Fifty million pixels from a few hundred KB: 20 bytes a pixel, whatever the format."""
    run(f"""
        wide = {WIDE}
        bombs = [
            malformed.png(wide, wide, 8, 6, malformed.zeros(wide * (wide * 4 + 1))),
            malformed.png(wide, wide, 16, 0, malformed.zeros(wide * (wide * 2 + 1))),
            malformed.save(malformed.Image.new("P", (wide, wide)), "GIF"),
        ]
        limit_memory(20 * wide * wide // 2**20)
        for bomb in bombs:
            assert len(bomb) < 2**20
            pixels, reason = outcome(decoder.decode, bomb)
            assert reason is None, reason
    """)


@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_of_a_hundred_megapixels_has_half_its_sides(turned):
    """With an orientation Pillow decodes it, otherwise libjpeg-turbo."""
    run(f"""
        photo = malformed.tall_jpeg(12_000, 9_008)
        if {turned}:
            photo = malformed.with_xmp(photo, b'tiff:Orientation="6"')
        limit_memory(1_000)
        shape = (6_000, 4_504, 3) if {turned} else (4_504, 6_000, 3)
        assert decoder.decode(photo).shape == shape
        header, grey = decoder.probe(photo)
        assert (header.height, header.width) == (shape[0] * 2, shape[1] * 2)
        assert grey.shape[0] >= 36
        too_large = malformed.tall_jpeg(12_000, 9_200)
        assert "more than 110,000,000 pixels" in outcome(decoder.probe, too_large)[1]
    """)


def test_a_progressive_jpeg_of_fifty_megapixels_has_half_its_sides():
    photo = save(Image.new("L", (8_160, 6_144), 77), "JPEG", progressive=True)
    pixels = decode.decode(photo)
    assert pixels.shape == (3_072, 4_080, 3)
    assert np.ptp(pixels) == 0
    assert decode.probe(photo).header[1:] == ("L", 8_160, 6_144)


def test_headers_of_too_many_pixels_are_refused_before_decoding():
    run("""
        bombs = malformed.bombs()
        limit_memory(32)
        for kind, bomb in bombs.items():
            reason, seconds = decode(bomb)
            assert reason and seconds < 0.5, (kind, reason, seconds)
            assert "pixels" in reason or kind == "webp", (kind, reason)
    """)


def test_a_jpeg_of_very_many_scans_is_refused():
    photo = SAMPLES["jpeg-progressive"]
    last = photo.rindex(b"\xff\xda")
    assert "scans" in reason(photo[:-2] + photo[last:-2] * 1_000 + photo[-2:])
    large = save(Image.new("L", (6_000, 6_000)), "JPEG", progressive=True)
    last = large.rindex(b"\xff\xda")
    assert "scans" in reason(large[:-2] + large[last:-2] * 60 + large[-2:])
    assert decode.decode(large).shape == (6_000, 6_000, 3)


@pytest.mark.parametrize("tile", [(20_000, 20_000), (2**30, 16), (16, 2**24)])
def test_a_tiff_of_tiles_far_larger_than_the_picture_is_refused(tile):
    packed = zeros(2**22)
    tags = {256: (4, 1, 4), 257: (4, 1, 4), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 2), 277: (3, 1, 3)}
    tags |= {322: (4, 1, tile[0]), 323: (4, 1, tile[1]), 324: (4, 1, 134), 325: (4, 1, len(packed))}
    assert "tiles" in reason(tiff(tags, packed))


@pytest.mark.parametrize("method", ["lzma", "zstd"])
def test_a_tiff_compression_of_unbounded_memory_is_refused(method):
    photo = save(Image.open(io.BytesIO(SAMPLES["png"])), "TIFF", compression=method)
    assert reason(photo) == f"a TIFF compressed by {method}, which isn't supported"


def test_a_large_run_length_bmp_is_refused():
    assert "run-length" in reason(bmp(1_024, 1_024, 8, 1, b"\1\5" * 2**20, bytes(1024)))
    # Each end of line fills the rest of a row, a pixel at a time.
    assert "run-length" in reason(bmp(2_000_000, 18, 8, 1, b"\0\0" * 18, bytes(1024)))


@pytest.mark.parametrize(
    "exif",
    [b"", b"junk", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\x08\0\0\0\1\0\x12\1\7\0"],
)
def test_broken_exif_is_ignored(exif):
    """A JPEG without JFIF has its density in EXIF alone, so Pillow reads EXIF on opening."""
    jpeg = SAMPLES["jpeg"]
    plain = decode.decode(jpeg)
    without_jfif = jpeg[:2] + jpeg[20:]
    for photo in (with_exif(jpeg, exif), with_exif(without_jfif, exif), with_exif(jpeg, exif, times=50)):
        assert np.array_equal(decode.decode(photo), plain)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_undefined_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        photo = save(Image.open(io.BytesIO(SAMPLES["png"])), kind, exif=exif)
        assert decode.decode(photo).shape == (18, 24, 3)


def test_harmless_jpeg_defects_are_accepted():
    """Seen in well-known photos: bytes behind the picture, an odd version number."""
    jpeg = SAMPLES["jpeg"]
    plain = decode.decode(jpeg)
    version = jpeg.index(b"JFIF\0") + 5
    for photo in (
        jpeg[:-2] + bytes(228) + jpeg[-2:],
        jpeg[:version] + b"\0\0" + jpeg[version + 2 :],
        jpeg[:20] + b"junk" + jpeg[20:],
        jpeg + b"trailer" * 99,
    ):
        assert np.abs(decode.decode(photo).astype(int) - plain).max() <= 4


def test_the_reason_does_not_depend_on_where_a_photo_is_truncated():
    reasons = {reason(SAMPLES["jpeg"][:-cut]) for cut in (20, 31, 44)}
    assert reasons == {"can't be decoded (truncated)"}


def test_pictures_converted_in_several_bands_have_no_seams():
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (600, 40, 4), np.uint8)
    image = Image.fromarray(pixels)
    over = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    assert np.array_equal(decode.decode(save(image, "PNG")), np.asarray(over))
    palette = image.convert("RGB").quantize(32)
    assert np.array_equal(decode.decode(save(palette, "PNG")), np.asarray(palette.convert("RGB")))
    deep = rng.integers(0, 65_536, (600, 40), np.uint16)
    for kind in ("PNG", "TIFF"):
        assert (decode.decode(save(Image.fromarray(deep), kind)) == (deep >> 8)[..., None]).all()


def test_decoding_in_threads_keeps_the_warning_filters():
    before = list(warnings.filters)
    photos = [with_exif(SAMPLES["jpeg"], b"II*\0\x08\0\0\0\1\0\x12\1\7\0\xff\xff\xff\xff"), *SAMPLES.values()]
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(decode.decode, photos * 4))) == 4 * len(photos)
    assert list(warnings.filters) == before


def test_a_png_of_an_invalid_depth_is_refused():
    assert "header" in reason(png(24, 18, 3, 1, zeros(100)))


def test_a_marker_without_a_length_hides_no_lossless_frame(tmp_path):
    """Read as a length, the two bytes behind the marker would lead to a harmless frame."""
    jpeg = SAMPLES["jpeg"]
    frame = jpeg.index(b"\xff\xc0")
    lossless = jpeg[:frame] + b"\xff\xc3" + jpeg[frame + 2 :]
    for marker in (b"\xff\x01", b"\xff\xd0", b"\xff\xd8"):
        hidden = lossless[:frame] + marker + lossless[frame:]
        (tmp_path / "decoy.jpg").write_bytes(hidden.ljust(frame + 2 + 0xFFC3, b"\0") + jpeg[frame:])
        run(f"""
            from pathlib import Path
            decoy = Path({str(tmp_path)!r}, "decoy.jpg").read_bytes()
            assert decoder._read_jpeg_segments(decoy) == (False, True)
            decode(decoy)
        """)


def test_heic_without_its_decoder_is_refused_with_the_name_of_the_package(monkeypatch):
    monkeypatch.setattr(decode, "READABLE", decode.READABLE - {"heic"})
    photo = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(80)
    assert reason(photo) == "a HEIC photo, which needs the package pillow-heif (pip install 'pawcast[heic]')"


def test_every_jpeg_process_decodes_or_has_a_reason_without_a_crash():
    """A lossless JPEG (SOF3) once overran the buffer of a scaled decode and ended the process."""
    run(
        """
        import io
        import numpy as np
        from PIL import Image

        def outcome(function, data):
            try:
                function(data)
            except ImageError:
                return "refused"
            return "decoded"

        for mode in ("L", "RGB", "CMYK"):
            for progressive in (False, True):
                file = io.BytesIO()
                pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(file, "JPEG", progressive=progressive)
                data = file.getvalue()
                place = data.index(b"\\xff\\xc2" if progressive else b"\\xff\\xc0") + 1
                for marker in range(0xC0, 0xD0):
                    for bits in (8, 12):
                        changed = bytearray(data)
                        changed[place], changed[place + 3] = marker, bits
                        outcomes = {outcome(f, bytes(changed)) for f in (decoder.decode, decoder.probe)}
                        assert len(outcomes) == 1, (mode, progressive, hex(marker), bits, outcomes)
        """
    )


@pytest.mark.parametrize("name", ["lossless_grey_64_j8", "lossless_rgb_64_j8", "invalid_sos_se0"])
def test_odd_jpegs_that_pillow_reads_are_read(name):
    code = f"""
        from pathlib import Path
        data = Path({str(case(f"{name}.jpg"))!r}).read_bytes()
        assert decoder.decode(data).shape[2] == 3
        assert decoder.probe(data).header.format == "JPEG"
        """
    run(code)
