"""X-ray codes and lesion measures as systems: the contract of all, and what is their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learnable import write_lesions, write_xrays
from PIL import Image
from system_contract import SystemContract

from sish.errors import MissingMaskError, ParameterError
from sish.systems.lesions.layers import Activations, EncoderLayers, NamedLayers
from sish.systems.lesions.mask_predictor import MaskPredictor, UNet, UNetConfig
from sish.systems.lesions.measures import MEASURES, cosine_scores, dice_scores, euclidean_scores, style_scores
from sish.systems.lesions.similarity import LesionDescriber, LesionDescription, LesionSimilarity
from sish.systems.training.data import fold_of, labelled_items, split_groups
from sish.systems.training.modules import train_code_generator, untrained_code_generator
from sish.systems.xray.codes import XrayCodes
from sish.systems.xray.generator import CodeGenerator, CodeNetwork, GeneratorConfig
from sish.vqvae import load_encoder

NET = GeneratorConfig(name="tiny", bits=64, channels=(8, 16), size_px=16, dropout=0.0)


class Colours:
    """A network for tests: mean and spread of each colour, and the picture as its one layer."""

    fingerprint = "colours"

    def __init__(self, gain=1.0):
        self.gain = gain

    def activations(self, picture):
        pixels = self.gain * picture.astype(np.float32).transpose(2, 0, 1) / 255
        features = np.concatenate([pixels.mean((1, 2)), pixels.std((1, 2))])
        return Activations(features, {"pixels": pixels})


def describer(**options):
    return LesionDescriber([Colours()], size_px=(32, 24), **options)


def generator():
    torch.manual_seed(0)
    return CodeGenerator(CodeNetwork(NET, ["Mass"]))


class TestXrayCodes(SystemContract):
    def make(self):
        return XrayCodes(generator(), probe=1, neighbours=3)


class TestXrayCodesExhaustive(SystemContract):
    def make(self):
        return XrayCodes(generator(), probe=None)


class TestStyle(SystemContract):
    def make(self):
        return LesionSimilarity("style", describer())


class TestEuclideanCosineDice(SystemContract):
    needs_mask = True

    def make(self):
        return LesionSimilarity("i1_ecd", describer())


# ---- lesions


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return labelled_items(write_lesions(tmp_path_factory.mktemp("lesions"), n=12))


def description(features, style, mask):
    as_row = np.asarray
    return LesionDescription(as_row(features, np.float32), as_row(style, np.float32), as_row(mask, bool))


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_by_hand(measure, lesions):
    # ED 5, 2.5, 0 -> ES 0, 1/2, 1; angles 90, 180, 0 degrees -> CS 1/2, 0, 1 (a query of [2.5, 0])
    # LS 4, 1, 0 -> SS 0, 3/4, 1; Dice of [1 1 0 0] with [1 0 0 0], [0 0 1 1], [1 1 0 0]: 2/3, 0, 1
    database = [
        description([2.5, 5.0], [2.0], [[1, 0, 0, 0]]),
        description([0.0, 0.0], [1.0], [[0, 0, 1, 1]]),
        description([2.5, 0.0], [0.0], [[1, 1, 0, 0]]),
    ]
    query = description([2.5, 0.0], [0.0], [[1, 1, 0, 0]])
    cosine = (1 / np.sqrt(5) + 1) / 2  # [2.5, 0] with [2.5, 5]; a vector of zeros counts as a cosine of 0
    parts = {"e": [0, 0.5, 1], "c": [cosine, 0.5, 1], "s": [0, 0.75, 1], "d": [2 / 3, 0, 1]}
    expected = {
        "euclidean": parts["e"],
        "cosine": parts["c"],
        "style": parts["s"],
        "dice": parts["d"],
        "i1_ed": [0, 0, 1],
        "i1_cd": [2 / (1 / cosine + 1.5), 0, 1],
        "i1_ecd": [0, 0, 1],
        "i1_se": [0, 2 / (4 / 3 + 2), 1],
        "i1_sc": [0, 2 / (4 / 3 + 2), 1],
        "i1_sd": [0, 0, 1],
    }[measure]
    items = [replace(lesions[n], group="") for n in (0, 2, 4)]
    found = LesionSimilarity(measure, describer()).fit(items, database)
    answer = found.rank(replace(lesions[6], group=""), query, k=3)
    scores = {hit.item_id: hit.score for hit in answer}
    assert [scores[item.item_id] for item in items] == pytest.approx(expected)


def test_the_farthest_of_the_own_lesion_does_not_set_the_scale(lesions):
    items = [replace(lesions[0], group="own"), lesions[2], lesions[4]]
    blank = [[1]]
    database = [
        description([9.0], [0.0], blank),
        description([4.0], [0.0], blank),
        description([1.0], [0.0], blank),
    ]
    system = LesionSimilarity("euclidean", describer()).fit(items, database)
    query = replace(lesions[6], group="own")
    answer = system.rank(query, description([0.0], [0.0], blank), k=3)
    assert [hit.score for hit in answer] == [0.75, 0.0]


def test_scores_are_those_of_the_formulae(lesions):
    told = describer()
    all_parts = [told.describe(item, ("euclidean", "style", "dice")) for item in lesions]
    for measure, formula, name in (
        ("euclidean", euclidean_scores, "features"),
        ("cosine", cosine_scores, "features"),
        ("style", style_scores, "style"),
        ("dice", dice_scores, "mask"),
    ):
        system = LesionSimilarity(measure, told).fit(lesions[1:])
        bare = replace(lesions[0], group="")
        rows = np.stack([getattr(row, name) for row in all_parts[1:]])
        expected = formula(getattr(all_parts[0], name), rows)
        answer = system.search(bare, k=20)
        assert {m.item_id: m.score for m in answer} == pytest.approx(
            {item.item_id: score for item, score in zip(lesions[1:], expected, strict=True)}
        )


def test_an_ensemble_averages_gram_matrices_and_joins_features(lesions):
    one, three = LesionDescriber([Colours()]), LesionDescriber([Colours(3.0)])
    both = LesionDescriber([Colours(), Colours(3.0)])
    parts = ("euclidean", "style")
    a, b, joined = (each.describe(lesions[0], parts) for each in (one, three, both))
    assert np.allclose(joined.style, (a.style + b.style) / 2, rtol=1e-5)
    assert np.allclose(joined.features, np.concatenate([a.features, b.features]))


def test_an_ensemble_of_unlike_encoders_is_refused(lesions):
    network = torch.nn.Conv2d(3, 5, 1)
    unlike = LesionDescriber([Colours(), NamedLayers(torch.nn.Sequential(network), ["0"], fingerprint="x")])
    with pytest.raises(ParameterError, match="ensemble"):
        unlike.describe(lesions[0], ("style",))
    with pytest.raises(ParameterError, match="no encoders"):
        LesionDescriber([])


def test_only_what_a_measure_needs_is_described(lesions):
    bare = replace(lesions[0], mask=None)
    seen = LesionSimilarity("i1_se", describer()).describe(bare)
    assert seen.mask is None and seen.features is not None and seen.style is not None
    assert LesionSimilarity("dice", describer()).describe(lesions[0]).features is None
    with pytest.raises(ParameterError, match="needs the mask"):
        LesionSimilarity("dice", describer()).fit([bare], [seen])


def test_a_photograph_without_a_mask_is_an_error_or_is_given_one(lesions):
    bare = replace(lesions[0], mask=None, item_id="bare")
    with pytest.raises(MissingMaskError, match=r"0\.png has no mask.*train-masks"):
        LesionSimilarity("dice", describer()).fit(lesions).search(bare)
    torch.manual_seed(0)
    predictor = MaskPredictor(UNet(UNetConfig(channels=(4, 8), size_px=(32, 24))))
    system = LesionSimilarity("i1_sd", describer(masks=predictor)).fit(lesions)
    assert system.describe(bare).mask.shape == (24, 32)
    assert len(system.search(bare, k=3)) == 3
    given = system.describe(lesions[0]).mask  # a mask that is given is not predicted
    assert np.array_equal(given, np.asarray(Image.open(lesions[0].mask)) > 0)


def test_an_empty_mask_scores_zero_and_is_no_error(lesions, tmp_path):
    Image.new("L", (32, 24)).save(tmp_path / "empty.png")
    empty = replace(lesions[0], mask=tmp_path / "empty.png", group="")
    answer = LesionSimilarity("i1_sd", describer()).fit(lesions[1:]).search(empty, k=20)
    assert {hit.score for hit in answer} == {0.0} and len(answer) == 11
    assert [hit.item_id for hit in answer] == [item.item_id for item in lesions[1:]]


def test_an_unknown_measure_is_refused():
    with pytest.raises(ParameterError, match="i1_sd"):
        LesionSimilarity("i1_xx")


def test_the_shipped_encoder_gives_layers(lesions):
    encoder = load_encoder()
    pixels = np.random.default_rng(0).integers(0, 255, (26, 35, 3), dtype=np.uint8)
    seen = EncoderLayers(encoder).activations(pixels)
    cropped = pixels[1:25, 1:33]
    assert np.array_equal(seen.features, encoder.encode(cropped[None]).features[0])
    assert len(seen.maps) == len(encoder.maps(cropped[None])) >= 2
    assert all(layer.ndim == 3 and np.isfinite(layer).all() for layer in seen.maps.values())
    system = LesionSimilarity("style", LesionDescriber(size_px=(32, 24))).fit(lesions[:3])
    assert system.search(replace(lesions[0], group="", item_id="q"), k=1)[0].item_id == lesions[0].item_id


def test_layers_of_any_network_by_name():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    picture = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    seen = NamedLayers(network, ["0", "2"], fingerprint="toy").activations(picture)
    with torch.no_grad():
        pixels = torch.from_numpy(picture[None]).permute(0, 3, 1, 2) / 127.5 - 1
        first = network[0](pixels)
        assert np.allclose(seen.maps["0"], first[0], atol=1e-6)
        assert np.allclose(seen.features, network(pixels)[0].mean((1, 2)), atol=1e-6)
    assert not network[0]._forward_hooks
    with pytest.raises(ParameterError, match="no layer 7"):
        NamedLayers(network, ["7"], fingerprint="toy")
    flat = NamedLayers(torch.nn.Sequential(torch.nn.Flatten()), ["0"], fingerprint="flat")
    with pytest.raises(ParameterError, match="want"):
        flat.activations(picture)


# ---- X-rays


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    return labelled_items(write_xrays(tmp_path_factory.mktemp("xrays"), n=48))


@pytest.fixture(scope="module")
def trained(xrays):
    return train_code_generator(xrays[:24], net=NET, valid_share=0.3, batch_size=4, max_epochs=40)


def shared(system, queries):
    """Labels that a query shares with its first five matches, on average."""
    return np.mean([len(query.labels & hit.item.labels) for query in queries for hit in system.search(query)])


def test_learnt_codes_find_more_findings_than_untrained_ones(xrays, trained):
    queries = [item for item in xrays[36:] if item.labels]
    learnt = shared(XrayCodes(trained, probe=None).fit(xrays[24:36]), queries)
    untrained = untrained_code_generator(xrays[:24], net=NET)
    assert learnt > shared(XrayCodes(untrained, probe=None).fit(xrays[24:36]), queries)


def test_all_communities_are_the_exhaustive_search(xrays, trained):
    whole = XrayCodes(trained, probe=None).fit(xrays)
    opened = XrayCodes(trained, probe=1000, neighbours=3).fit(xrays)
    for query in xrays[::7]:
        assert opened.search(query, 9).hits == whole.search(query, 9).hits


def test_communities_look_at_less_and_rank_inside_them(xrays, trained):
    system = XrayCodes(trained, probe=1, neighbours=3).fit(xrays)
    assert len(system.communities) > 1
    whole = XrayCodes(trained, probe=None).fit(xrays)
    for query in xrays[::7]:
        answer, everything = system.search(query, 3), whole.search(query, len(xrays))
        assert answer.looked_at < everything.looked_at == sum(item.group != query.group for item in xrays)
        ranked = [hit.item_id for hit in everything]
        places = [ranked.index(hit.item_id) for hit in answer]
        assert places == sorted(places)


def test_a_short_list_is_filled_from_further_communities(xrays, trained):
    system = XrayCodes(trained, probe=1, neighbours=2).fit(xrays)
    answer = system.search(xrays[0], len(xrays))
    assert len(answer) == sum(item.group != xrays[0].group for item in xrays)


def test_weights_are_loaded_from_a_file(xrays, trained, tmp_path):
    trained.save(tmp_path / "codes.safetensors")
    system = XrayCodes(tmp_path / "codes.safetensors", probe=None).fit(xrays)
    assert system.search(xrays[3]) == XrayCodes(trained, probe=None).fit(xrays).search(xrays[3])
    assert system.nbytes() == 48 * 8


@pytest.mark.parametrize("options", [{"probe": 0}, {"neighbours": 0}, {"resolution": 0.0}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ParameterError):
        XrayCodes(generator(), **options)


# ---- real images


def test_real_lesions_keep_their_own_lesion_out(data_dir):
    items = labelled_items(data_dir / "ham10000")
    several = [item for item in items if sum(other.group == item.group for other in items) > 1][:8]
    others = [item for item in items if item.group not in {own.group for own in several}][:16]
    system = LesionSimilarity("i1_sd", LesionDescriber(size_px=(96, 72))).fit([*several, *others])
    for query in several[:4]:
        answer = system.search(query, 5)
        assert len(answer) == 5 and all(hit.item.group != query.group for hit in answer)
        assert all(0 <= hit.score <= 1 for hit in answer)


def test_real_patients_are_on_one_side_only(data_dir):
    items = labelled_items(data_dir / "nih_cxr")
    train, valid = split_groups(items, 0.2)
    folds = [fold_of(item, 5) for item in items]
    assert {item.group for item in train}.isdisjoint(item.group for item in valid)
    assert len({(item.group, fold) for item, fold in zip(items, folds, strict=True)}) == 264  # patients
    assert 0.1 < len({item.group for item in valid}) / 264 < 0.3
    assert min(np.bincount(folds, minlength=5)) > 100
    codes = untrained_code_generator(items[:64])
    system = XrayCodes(codes, probe=1, neighbours=4).fit(items[:200])
    for query in items[200:204]:
        assert len(system.search(query, 10)) == 10
