"""An encoder given as an object: five members, the same answers as by name, and typed refusals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import Page

import sish
from sish.barcoder import Barcoder
from sish.demo.synthetic import write_slides
from sish.encode import SlideEncoder
from sish.encoders import ForeignEncoder, load, measured, name_of
from sish.errors import EncoderMismatchError, ParameterError, ParameterTypeError, QueryError
from sish.recipe import Recipe
from sish.systems import Item, Sish, SlideSimilarity, Smily, Yottixel

MEMBERS = ("fingerprint", "mpp", "patch_px", "licence", "encode")


class Five:
    """Means of colours of a grid, 48 numbers and none negative: the five members and no other."""

    fingerprint, licence, patch_px, mpp = "five-1", "as the tests", 64, 2.0
    returned = None

    def encode(self, images):
        if self.returned is not None:
            return SimpleNamespace(features=self.returned(len(images)), codes=None)
        grid = images.reshape(len(images), 4, images.shape[1] // 4, 4, images.shape[2] // 4, 3)
        means = grid.mean(axis=(2, 4)).reshape(len(images), -1)
        return SimpleNamespace(features=means.astype(np.float32), codes=None)


def like(**changes):
    """A `Five` with other members."""
    return type("Like", (Five,), changes)()


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted")
    write_slides(folder, n_slides=4, side_um=700)
    return sorted(folder.glob("*.tif*"))


@pytest.fixture(scope="module")
def made(slides, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "five.sish"
    index = sish.Index.create(path, encoder=Five(), measure=slides)
    report = index.add(slides, show_progress=False)
    assert len(report.added) == len(slides)
    return index


def test_the_example_of_the_page_runs(slides, tmp_path, monkeypatch):
    page = Page("docs/how-to/encoders.md").below("## Any model as an encoder")
    model, _ = page.blocks("python")
    assert len([line for line in model.partition("class Mine")[2].splitlines() if line.strip()]) <= 10
    (tmp_path / "slides").symlink_to(slides[0].parent)
    monkeypatch.chdir(tmp_path)
    names = page.run({"query": slides[0]})
    assert names["results"][0].slide_id == slides[0].stem and names["results"][0].score == 1
    assert names["index"].recipe.patch_px == 128


def test_an_index_is_of_the_encoders_size_and_is_centred(made):
    assert (made.recipe.weights, made.recipe.patch_px, made.recipe.mpp) == ("object:five-1", 64, 2.0)
    assert made.encoder.calibration is not None
    assert made.params.threshold == made.encoder.calibration.threshold > 0
    header = sish.Index.open(made.path).encoder
    assert np.array_equal(header.calibration.centre, made.encoder.calibration.centre)


def test_it_opens_with_the_object_again_and_answers_the_same(made, slides):
    again = sish.Index.open(made.path, encoder=Five())
    by_path, by_id = again.search(slides[1]), again.search(slides[1].stem)
    assert [(hit.slide_id, hit.score) for hit in by_path] == [(hit.slide_id, hit.score) for hit in by_id]
    assert by_path[0].slide_id == slides[1].stem and by_path[0].score == 1


def test_without_the_object_ids_are_found_and_pixels_refused(made, slides):
    bare = sish.Index.open(made.path)
    assert bare.search(slides[0].stem)[0].slide_id == slides[0].stem
    pixels = np.zeros((200, 200, 3), np.uint8)
    for ask in (lambda: bare.search(pixels, mpp=2.0), lambda: bare.add(slides)):
        with pytest.raises(QueryError, match=r"five-1.*Index\.open\(path, encoder=\.\.\.\)"):
            ask()


def test_slides_that_are_there_need_no_weights(slides, tmp_path):
    sish.Index.create(tmp_path / "a.sish", encoder=Five()).add(slides[0], show_progress=False)
    moved = sish.Index.open(tmp_path / "a.sish", weights="gone.safetensors")
    assert moved.add(slides[0], show_progress=False).already == [slides[0].stem]


def test_the_name_of_another_object_is_refused_as_another(made, slides):
    named = sish.Index.open(made.path, encoder="object:five-2")
    with pytest.raises(EncoderMismatchError, match=r"five-1.*five-2"):
        named.search(slides[0])


def test_another_object_is_refused_before_a_slide_is_read(made, slides):
    other = sish.Index.open(made.path, encoder=like(fingerprint="five-2"))
    with pytest.raises(EncoderMismatchError, match=r"five-1.*five-2"):
        other.search(slides[0], override_mpp=0.5)


def test_an_encoder_and_weights_together_are_refused(made, tmp_path):
    with pytest.raises(ParameterError, match="give one of the two"):
        sish.Index.create(tmp_path / "a.sish", encoder=Five(), recipe=Recipe(weights="timm:uni"))
    with pytest.raises(ParameterError, match="give one of the two"):
        sish.Index.open(made.path, encoder=Five(), weights="mine.ckpt")
    assert not (tmp_path / "a.sish").exists()


def test_a_recipe_may_say_another_size():
    assert SlideEncoder(Recipe(patch_px=128, n_clusters=5), encoder=Five()).recipe.patch_px == 128
    own = SlideEncoder(Recipe(n_clusters=5), encoder=Five()).recipe
    assert (own.patch_px, own.mpp, own.n_clusters) == (64, 2.0, 5)
    assert SlideEncoder(encoder="timm:uni").recipe == Recipe.of("timm:uni")


def test_an_index_that_was_not_measured_says_so(slides, made, tmp_path):
    index = sish.Index.create(tmp_path / "bare.sish", encoder=Five())
    report = index.add(slides[:1], show_progress=False)
    assert report.added and "sish index recalibrate" in report.notes[-1]
    assert not made.add(slides[:1], show_progress=False).notes
    with pytest.raises(ParameterError, match=r"give encoder="):
        sish.Index.create(tmp_path / "none.sish", recipe=Recipe(weights="object:x"))


@pytest.mark.parametrize(
    "given", [Five, SimpleNamespace(fingerprint="a", mpp=1.0, patch_px=64, licence="b", encode=3)]
)
def test_a_class_or_something_that_encodes_nothing_is_refused(given):
    with pytest.raises(ParameterTypeError, match="an instance that encodes"):
        SlideEncoder(encoder=given)


def test_a_network_that_is_no_encoder_is_refused_on_one_line_before_a_slide_is_read():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    for make in (SlideEncoder, Yottixel, Sish, SlideSimilarity, Smily):
        with pytest.raises(ParameterTypeError, match=r"got an encoder \(Sequential\) without fing") as caught:
            make(encoder=network)
        assert "\n" not in str(caught.value) and caught.value.path is None


def test_an_encoder_that_lacks_one_of_the_other_members_is_completed():
    others = (
        "hamming_threshold",
        "binarisation",
        "n_features",
        "codebook",
        "stride",
        "orientation_invariant",
    )
    foreign = measured(like(**dict.fromkeys(others, 1)))
    assert isinstance(foreign, ForeignEncoder) and foreign.n_features == 48


def test_an_object_that_is_false_is_not_the_shipped_encoder(tmp_path):
    index = sish.Index.open_or_create(tmp_path / "a.sish", encoder=like(__len__=lambda self: 0))
    assert index.recipe.weights == "object:five-1"


def test_numbers_of_numpy_are_numbers():
    odd = measured(like(patch_px=np.int64(64), mpp=np.float32(2.0)))
    assert type(odd.patch_px) is int and type(odd.mpp) is float
    assert (
        SlideEncoder(encoder=like(patch_px=np.int64(64), mpp=np.float32(2.0))).recipe
        == SlideEncoder(encoder=Five()).recipe
    )


@pytest.mark.parametrize(
    "encoded", [None, np.zeros((2, 8)), SimpleNamespace(features=torch.ones(2, 8, requires_grad=True))]
)
def test_an_answer_without_features_is_told_on_one_line(encoded):
    odd = measured(like(encode=lambda self, images: encoded))
    with pytest.raises(ParameterError, match=r"encode of five-1.*want an object with features") as caught:
        odd.features(np.zeros((2, 64, 64, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_features_of_another_length_than_before_are_refused():
    lengths = iter((8, 9))
    odd = measured(like(returned=staticmethod(lambda n: np.ones((n, next(lengths)), np.float64))))
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    assert odd.features(pixels).dtype == np.float32
    with pytest.raises(ParameterError, match=r"want float32 \(2, 8\)"):
        odd.features(pixels)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_missing_member_is_named(name):
    members = {it: getattr(Five, it) for it in MEMBERS if it != name}
    with pytest.raises(ParameterTypeError, match=f"without {name}"):
        SlideEncoder(encoder=SimpleNamespace(**members))


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": 7}, {"fingerprint": ""}, {"fingerprint": "a\nb"}, {"licence": None},
        {"patch_px": 0}, {"patch_px": 64.0}, {"patch_px": True}, {"mpp": True}, {"patch_px": 10**6},
        {"mpp": 0.0}, {"mpp": float("nan")}, {"mpp": "1"},
    ],
)  # fmt: skip
def test_an_absurd_member_is_refused(changes):
    with pytest.raises(ParameterError, match="got "):
        name_of(like(**changes))


@pytest.mark.parametrize(
    "returned",
    [
        lambda n: np.zeros((n + 1, 8), np.float32), lambda n: np.zeros((n, 0), np.float32),
        lambda n: np.zeros((n, 8), np.int64), lambda n: np.full((n, 8), 1e300),
        lambda n: np.full((n, 8), np.nan, np.float32),
        lambda n: np.zeros(n),
    ],
)  # fmt: skip
def test_odd_features_are_refused(returned):
    with pytest.raises(ParameterError, match="five-1"):
        measured(like(returned=staticmethod(returned))).features(np.zeros((2, 64, 64, 3), np.uint8))


def test_an_encoder_that_tells_all_is_used_as_it_is():
    shipped = load("vqvae")
    assert measured(shipped) is shipped
    foreign = measured(Five())
    assert isinstance(foreign, ForeignEncoder) and foreign.n_features == 48
    assert foreign.features(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 48)
    by_object = SlideEncoder(encoder=shipped)
    assert by_object.fingerprint == SlideEncoder(encoder="vqvae").fingerprint


def test_systems_centre_a_foreign_encoder_on_their_database():
    """Bits about the archive's mean keep more of the true neighbours than bits about nothing."""
    rng = np.random.default_rng(0)
    features = (rng.gamma(2.0, size=(300, 64)) * 20 + rng.gamma(1.0, size=64) * 500).astype(np.float32)
    centred = features - features.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    true = np.argsort(-(unit @ unit.T), axis=1)[:, 1:11]

    def kept(barcoder):
        bits = np.unpackbits(barcoder.barcodes(features), axis=1).astype(np.int32)
        apart = (bits[:, None] != bits[None]).sum(axis=2)
        found = np.argsort(apart, axis=1, kind="stable")[:, 1:11]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true, found, strict=True)])

    encoder = ForeignEncoder(Five())
    own, bare = Barcoder.measured_on(features, encoder), Barcoder.of(encoder)
    assert own.threshold != bare.threshold
    assert kept(own) > 0.6 > kept(bare)


@pytest.mark.parametrize("make", [Yottixel, Sish, lambda **given: SlideSimilarity(2.0, **given), Smily])
def test_every_system_takes_the_object(make, slides):
    items = [Item(path.stem, path) for path in slides[:3]]
    system = make(encoder=Five()).fit(items)
    hits = system.search(Item("again", items[0].path), k=3)
    assert hits[0].item_id == items[0].item_id


def test_a_describer_and_an_encoder_together_are_refused():
    describer = Yottixel(encoder=Five())._describer
    with pytest.raises(ParameterError, match="give the encoder to the describer"):
        Yottixel(describer, encoder=Five())
