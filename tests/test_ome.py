"""The pixel size that an OME-TIFF tells, and how XML that cannot be trusted is refused."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sish.errors import MissingMppError
from sish.slides.formats.ome import ome_pixel_size
from sish.slides.scale import find_scale
from sish.slides.slide import open_slide

PIXELS = np.random.default_rng(0).integers(100, 200, (300, 400, 3), dtype=np.uint8)
NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome(*images: dict[str, object], head: str = '<?xml version="1.0"?><!-- a comment -->') -> str:
    said = (" ".join(f'{name}="{value}"' for name, value in image.items()) for image in images)
    body = "".join(f"<Image><Pixels {each}><Channel/></Pixels></Image>" for each in said)
    return f'{head}<OME xmlns="{NAMESPACE}">{body}</OME>'


def write_ome(path, unit="µm", size=0.25, **options):
    told = {"axes": "YXS"} | {f"PhysicalSize{axis}": size for axis in "XY"}
    told |= {f"PhysicalSize{axis}Unit": unit for axis in "XY"} if unit else {}
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=told, ome=True, **options)


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        ("µm", "0.25"), ("\u03bcm", "0.25"), ("um", "0.25"), (None, "0.25"), ("nm", "250"), ("mm", "0.00025"),
        ("cm", "2.5e-5"), ("m", "2.5e-7"), ("&#181;m", "0.25"), ("µm", "0,25"),
    ],
)  # fmt: skip
def test_every_unit_of_length_gives_micrometres(unit, told):
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    found = ome_pixel_size(ome({"PhysicalSizeX": told, "PhysicalSizeY": told, **units}))
    assert found == pytest.approx((0.25, 0.25))


def test_each_axis_has_its_own_size_and_unit():
    both = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.51}
    assert ome_pixel_size(ome(both)) == pytest.approx((0.5, 0.51))
    assert ome_pixel_size(ome({"PhysicalSizeY": 0.5})) == (0.5, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "", "Aperio Image Library|MPP = 0.25", "ImageJ=1.53\nunit=micron",
        ome(), ome({"SizeX": 4}), ome({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}),
        '<DataObject><Pixels PhysicalSizeX="0.25"/></DataObject>',
    ],
)  # fmt: skip
def test_what_tells_no_size_gives_none(text):
    assert ome_pixel_size(text) is None


def test_the_image_of_the_slides_own_size_is_taken():
    small = {"SizeX": 40, "SizeY": 30, "PhysicalSizeX": 8}
    large = {"SizeX": 400, "SizeY": 300, "PhysicalSizeX": 0.5}
    assert ome_pixel_size(ome(small, large), (400, 300)) == (0.5, 0.5)
    with pytest.raises(ValueError, match="other sizes"):
        ome_pixel_size(ome(small, large), (200, 150))


BOMB = '<!DOCTYPE OME [<!ENTITY a "0.25"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ome({"PhysicalSizeX": "&b;"}, head=BOMB), "document type"),
        (ome({"PhysicalSizeX": "&a;"}, head=OUTSIDE), "document type"),
        ("<OME><Image>", "broken XML"),
        ("<OME>" * 100_000, "broken XML"),
        ("<OME>\0</OME>", "broken XML"),
        (ome({"PhysicalSizeX": "a quarter\n" * 50}), "no number"),
        (ome({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "light year"}), "'light year'"),
    ],
)
def test_bad_xml_is_refused_on_one_short_line(text, reason):
    with pytest.raises(ValueError, match=reason):
        ome_pixel_size(text)
    with pytest.raises(MissingMppError, match=reason) as caught:
        find_scale({"tiff.ImageDescription": text}, "a.tif")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert find_scale({"tiff.ImageDescription": text}, "a.tif", mpp=0.5).source == "given"


@given(st.text(alphabet='<>/="&;:!-?[]OMEPixels PhysicalSizeX01.\0\n', max_size=200))
def test_no_text_gives_another_error(text):
    try:
        found = ome_pixel_size(f"<OME>{text}")
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert found is None or len(found) == 2


LEFT_OVER = {"resolution": (10_000, 10_000), "resolutionunit": "CENTIMETER"}  # 1 um/px


@pytest.mark.parametrize(
    "layout", [{"tile": (128, 128)}, {"rowsperstrip": 37}], ids=["openslide", "tifffile"]
)
@pytest.mark.parametrize("tags", [{}, LEFT_OVER], ids=["alone", "with-tags"])
def test_the_xml_of_an_ome_tiff_is_its_scale(tmp_path, layout, tags):
    write_ome(path := tmp_path / "a.ome.tif", **layout, **tags)
    with open_slide(path) as slide:
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.25), "ome-xml")
    with open_slide(path, mpp=0.5) as slide:
        assert slide.mpp == pytest.approx(0.25)
    with open_slide(path, override_mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "override")


def test_a_smaller_copy_with_the_old_xml_is_not_taken_at_the_old_scale(tmp_path):
    write_ome(path := tmp_path / "a.ome.tif")
    description = tifffile.TiffFile(path).pages.first.description.encode()
    small = np.asarray(Image.fromarray(PIXELS).resize((200, 150)))
    tifffile.imwrite(tmp_path / "b.tif", small, description=description, metadata=None, photometric="rgb")
    with pytest.raises(MissingMppError, match="other sizes"):
        open_slide(tmp_path / "b.tif")


def test_pixels_of_an_ome_tiff_that_are_not_square_are_refused():
    text = ome({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5})
    with pytest.raises(MissingMppError, match=r"0\.25 x 0\.5 um, not square"):
        find_scale({"tiff.ImageDescription": text, "openslide.objective-power": "40"}, "a.ome.tif")


@pytest.mark.parametrize(
    ("name", "mpp"), [("OS-1-detail", 0.2271), ("OS-2-ndpi", 0.2271), ("OS-2-vsi", 0.3461)]
)
def test_real_ome_tiffs_tell_their_scale(data_dir, name, mpp):
    path = data_dir / "slides" / "formats" / f"{name}.ome.tif"
    if not path.is_file():
        pytest.skip(f"no {path}: get the newer test data")
    page = tifffile.TiffFile(path).pages.first
    x, y = ome_pixel_size(page.description, (page.imagewidth, page.imagelength))
    assert (x, y) == pytest.approx((mpp, mpp), abs=1e-4)
