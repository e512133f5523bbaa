"""The slides and patches on which features are measured before an archive is indexed."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sish.encode import SlideEncoder
from sish.errors import ParameterError, SlideOpenError
from sish.recipe import Recipe
from sish.sampling import draw, measured_encoder, take_sample
from sish.slides.slide import slide_from_array
from tests.plain_encoder import PlainEncoder


class Foreign(PlainEncoder):
    """A `PlainEncoder` whose features are measured."""

    fingerprint, binarisation = "foreign", "projection"


def coder(workers=2):
    recipe = Recipe(weights="object:foreign", patch_px=64, fraction=1.0)
    return SlideEncoder(recipe, encoder=Foreign(), workers=workers)


def picture(seed, side=64):
    rng = np.random.default_rng(seed)
    return (rng.integers(60, 200, (side, side, 3)) * rng.uniform([0.8, 0.4, 0.8], [1, 0.65, 1])).astype(
        np.uint8
    )


def openers(pictures):
    return {Path(name): partial(slide_from_array, it, 1.0, name) for name, it in pictures.items()}


def features_of(found):
    return {path.name: slide.seen.features for path, slide in found.slides.items()}


def test_the_draw_is_by_name_alone():
    names = [Path(f"/old/{number}.svs") for number in range(50)]
    drawn = draw(names)
    assert drawn != names and sorted(drawn) == sorted(names)
    assert draw(reversed(names)) == drawn
    assert [path.name for path in draw(Path("/new/place") / path.name for path in names)] == [
        path.name for path in drawn
    ]


def test_slides_of_one_name_are_in_order_of_their_paths():
    twins = [Path("/b/1.svs"), Path("/a/1.svs")]
    assert draw(twins) == draw(twins[::-1]) == twins[::-1]


def test_neither_order_nor_workers_change_the_sample():
    pictures = {f"{number}.png": picture(number, 64 + 64 * (number % 3)) for number in range(9)}
    one = take_sample(coder(), openers(pictures))
    other = take_sample(coder(workers=1), openers(dict(reversed(pictures.items()))))
    assert list(one.slides) == list(other.slides) and one.with_tissue == 9
    assert one.features.tobytes() == other.features.tobytes()


def test_a_slide_gives_at_most_fifty_patches_and_in_a_large_call_ten():
    large = picture(0, 64 * 12)
    few = take_sample(coder(), openers({"a": large, "b": picture(1)}))
    assert len(few.slides[Path("a")].mosaic) > 100
    assert {path.name: len(it.seen.rows) for path, it in few.slides.items()} == {"a": 50, "b": 1}
    rows = few.slides[Path("a")].seen.rows
    assert rows[-1] > 90 and np.ptp(np.diff(rows)) <= 1  # evenly
    many = take_sample(
        coder(), openers({str(number): picture(number) for number in range(199)} | {"a": large})
    )
    assert len(many.slides[Path("a")].seen.rows) == 10


def test_the_sample_ends_with_two_thousand_patches(monkeypatch):
    monkeypatch.setattr("sish.sampling.PATCHES", 20)
    pictures = {f"{number}": picture(number) for number in range(50)}
    pictures["0"] = np.full((64, 64, 3), 255, np.uint8)  # no tissue
    found = take_sample(coder(), openers(pictures))
    assert len(found.features) == 20
    in_order = [path.name for path in draw(map(Path, pictures))]
    assert [path.name for path in found.slides] == in_order[: len(found.slides)]


def test_broken_slides_are_passed_over():
    def broken():
        raise SlideOpenError("broken")

    pictures = openers({"a": picture(0), "b": picture(1)})
    found = take_sample(coder(), pictures | {Path("c"): broken})
    assert sorted(path.name for path in found.slides) == ["a", "b"]
    assert take_sample(coder(), {Path("c"): broken}).features.shape == (0, 0)


def test_what_was_seen_is_not_encoded_again():
    encoder, slide = coder(), slide_from_array(picture(0, 64 * 9), 1.0, "a")
    sampled = take_sample(encoder, {Path("a"): lambda: slide_from_array(picture(0, 64 * 9), 1.0, "a")})
    seen = sampled.slides[Path("a")]
    calls = []
    encoder = encoder.measured_on(sampled.features)
    encoder.features = lambda pixels: calls.append(len(pixels)) or Foreign().features(pixels)
    codes = encoder.encode_rest(slide, seen.mosaic, seen.seen)
    assert sum(calls) == len(seen.mosaic) - len(seen.seen.rows) > 0
    whole = encoder.encode(encoder.prepare(slide))
    assert codes.barcodes.tobytes() == whole.barcodes.tobytes()
    assert codes.l0_xy.tolist() == whole.l0_xy.tolist() and codes.keys.tolist() == whole.keys.tolist()


def test_folders_without_tissue_measure_nothing(tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"no slide")
    with pytest.raises(ParameterError, match=r"got 0 patches of 1 slides .* give slides with tissue"):
        measured_encoder(coder(), tmp_path)
