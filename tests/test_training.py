"""Training of the systems' networks: data kept apart, losses by hand, what is learnt, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learnable import write_lesions, write_xrays
from PIL import Image
from safetensors.torch import load_file

from benchmarks.datasets import load_dataset
from sish.errors import (
    LabelsError,
    MissingMaskError,
    OutputError,
    ParameterError,
    SlideOpenError,
    WeightsError,
)
from sish.systems.item import Item
from sish.systems.lesions.mask_predictor import (
    MaskPredictor,
    UNet,
    UNetConfig,
    focal_tversky_loss,
    intersection_over_union,
    load_mask_predictor,
    tversky_index,
)
from sish.systems.small_pictures import read_given_mask, read_picture
from sish.systems.training.data import (
    FindingsData,
    FindingsFolder,
    MaskData,
    distorted,
    fold_of,
    labelled_items,
    split_groups,
)
from sish.systems.training.modules import (
    CodeModule,
    MaskModule,
    train_code_generator,
    train_mask_predictor,
    untrained_code_generator,
)
from sish.systems.xray.generator import (
    CodeGenerator,
    CodeNetwork,
    GeneratorConfig,
    Pass,
    load_code_generator,
)

NET = GeneratorConfig(name="tiny", bits=16, channels=(8, 16), size_px=16, dropout=0.0)
UNET = UNetConfig(name="tiny", channels=(4, 8), size_px=(32, 24))


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    return labelled_items(write_xrays(tmp_path_factory.mktemp("xrays")))


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return labelled_items(write_lesions(tmp_path_factory.mktemp("lesions")))


@pytest.fixture(scope="module")
def generator(xrays):
    return train_code_generator(xrays, net=NET, valid_share=0.3, batch_size=4, max_epochs=40)


@pytest.fixture(scope="module")
def predictor(lesions):
    return train_mask_predictor(lesions, net=UNET, valid_share=0.3, batch_size=4, max_epochs=30, patience=30)


def pictures_of(items):
    return np.stack([read_picture(item.path, (16, 16), "L") for item in items])


# ---- data


def test_a_table_becomes_items(xrays, lesions):
    assert (len(xrays), xrays[0].labels, xrays[0].group) == (24, frozenset(), "patient 0")
    assert xrays[7].labels == {"Effusion", "Mass"} and xrays[7].group == "patient 3"
    assert lesions[1].label == "nv" and lesions[1].mask.name == "1_mask.png"


def test_no_patient_is_on_both_sides(xrays):
    train, valid = split_groups(xrays, 0.3)
    assert {item.group for item in train}.isdisjoint({item.group for item in valid})
    assert sorted(item.item_id for item in (*train, *valid)) == sorted(item.item_id for item in xrays)
    fewer, _ = split_groups(xrays[4:], 0.3)
    assert {item.item_id for item in fewer} <= {item.item_id for item in train}  # nobody changes sides


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_few_patients_fill_both_sides(share):
    items = [Item(str(number), None, group=str(number // 2)) for number in range(4)]
    train, valid = split_groups(items, share)
    assert (len(train), len(valid)) == (2, 2) and train[0].group != valid[0].group


def test_a_fold_that_is_kept_aside_is_never_read(xrays):
    folder = xrays[0].path.parent
    data = FindingsFolder(folder, valid_share=0.3, fold=1, folds=3)
    seen = {item.group for item in (*data.train_items, *data.valid_items)}
    aside = {item.group for item in xrays if fold_of(item, 3) == 1}
    assert aside and seen.isdisjoint(aside) and seen | aside == {item.group for item in xrays}


def test_benchmarks_keep_the_same_patients_aside(xrays):
    read = load_dataset(xrays[0].path.parent).items  # `--data.fold 1` is fold 1 of `benchmarks.systems`
    assert [fold_of(item, 5) for item in read] == [fold_of(item, 5) for item in xrays]


def test_items_without_a_group_are_their_own():
    items = [Item(str(number), None) for number in range(60)]
    assert {fold_of(item, 3) for item in items} == {0, 1, 2}


def test_what_is_learnt_is_lined_up_with_its_picture(xrays):
    data = FindingsData(xrays, valid_share=0.3, size_px=16)
    data.setup("fit")
    assert data.findings == ("Effusion", "Mass")
    for item, picture, target in zip(data.train_items, *data.train_set.tensors, strict=True):
        assert np.array_equal(picture.numpy(), read_picture(item.path, (16, 16), "L"))
        assert target.tolist() == [float(finding in item.labels) for finding in data.findings]


def test_pictures_and_masks_are_distorted_alike():
    torch.manual_seed(0)
    masks = torch.zeros(6, 1, 24, 32)
    masks[:, :, 6:14, 4:20] = 1
    both = distorted(torch.cat([masks, masks], 1), mirror=True)
    assert torch.equal(both[:, 0], both[:, 1])
    assert not torch.equal(both[:, :1], masks)


def test_without_distortion_a_picture_stays_as_it_is():
    pictures = torch.rand(3, 1, 12, 16)
    assert torch.allclose(distorted(pictures, mirror=False, turn=0, scale=0, shift=0), pictures, atol=1e-5)


def test_a_turned_square_keeps_its_area_in_a_wide_picture():
    torch.manual_seed(0)
    square = torch.zeros(40, 1, 60, 120)
    square[:, :, 20:40, 50:70] = 1
    turned = distorted(square, mirror=False, turn=1.0, scale=0, shift=0)
    assert torch.allclose(turned.sum((1, 2, 3)), torch.tensor(400.0), rtol=0.05)


# ---- losses


def test_tversky_by_hand():
    # 2 hit, 1 missed, 1 wrong, s = 1: 3 / (3 + 0.7 + 0.3) = 0.75, and the loss 0.25 ** 0.75
    masks = torch.tensor([[[1.0, 1.0, 1.0, 0.0, 0.0]]])
    found = torch.tensor([[[1.0, 1.0, 0.0, 1.0, 0.0]]])
    assert float(tversky_index(found, masks)) == pytest.approx(0.75)
    assert float(focal_tversky_loss(found, masks)) == pytest.approx(0.25**0.75)


def test_tversky_with_even_weights_is_dice():
    generator = np.random.default_rng(0)
    masks, found = torch.from_numpy(generator.integers(0, 2, (2, 5, 6, 7)).astype(np.float32))
    index = tversky_index(found, masks, alpha=0.5, beta=0.5, smooth=0)
    dice = 2 * (masks * found).sum((1, 2)) / (masks.sum((1, 2)) + found.sum((1, 2)))
    assert torch.allclose(index, dice)


def test_a_missed_pixel_costs_more_than_a_wrong_one():
    masks = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    missed, wrong = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    assert focal_tversky_loss(missed, masks) > focal_tversky_loss(wrong, masks) > 0


def test_the_loss_of_findings_by_hand():
    # findings said 1 and 0, found with p = 0.8 and 0.4: the mean of -log 0.8 and -log 0.6
    class Told(torch.nn.Module):
        def forward(self, images):
            return Pass(torch.zeros(1, 8), torch.logit(torch.tensor([[0.8, 0.4]])))

    module = CodeModule(["a", "b"], NET)
    module.network, module.log = Told(), lambda *given, **more: None
    loss = module.training_step((torch.zeros(1, 1, 16, 16), torch.tensor([[1.0, 0.0]])), 0)
    assert float(loss) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)


def test_the_slope_of_a_perfect_mask_is_finite():
    found = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    focal_tversky_loss(found, torch.tensor([[[1.0, 0.0]]])).backward()
    assert torch.isfinite(found.grad).all()


# ---- codes


def test_a_bit_is_set_from_one_half_on(generator, xrays):
    pictures = pictures_of(xrays[:5])
    activations, _ = generator._run(pictures)
    assert ((activations > 0) & (activations < 1)).all()
    assert np.array_equal(np.unpackbits(generator.codes(pictures), axis=1), activations >= 0.5)
    assert generator.codes(pictures).shape == (5, 2)


def test_codes_do_not_depend_on_company_or_exposure(generator, xrays):
    pictures = pictures_of(xrays[:3])
    alone = np.concatenate([generator.codes(picture[None]) for picture in pictures])
    assert np.array_equal(generator.codes(pictures), alone)
    darker = (pictures // 2).astype(np.uint8)
    assert np.unpackbits(generator.codes(darker) ^ alone).mean() < 0.1


def test_findings_are_learnt_and_codes_follow_them(generator, xrays):
    probabilities = generator.probabilities(pictures_of(xrays))
    said = np.array([[finding in item.labels for finding in generator.findings] for item in xrays])
    for own, present in zip(probabilities.T, said.T, strict=True):  # the area under the curve
        assert (own[present][:, None] > own[~present]).mean() > 0.9
    bits = np.unpackbits(generator.codes(pictures_of(xrays)), axis=1).astype(int)
    distances = np.abs(bits[:, None] - bits[None]).sum(2)
    same = (said[:, None] == said[None]).all(2)
    assert distances[same].mean() < distances[~same].mean() / 2


def test_the_same_seed_gives_the_same_generator(xrays):
    first, second = (train_code_generator(xrays, net=NET, valid_share=0.3, max_epochs=2) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    other = train_code_generator(xrays, net=NET, valid_share=0.3, max_epochs=2, seed=1)
    assert other.fingerprint != first.fingerprint


def test_untrained_bits_are_balanced_and_know_no_findings(xrays):
    relabelled = [replace(item, labels=xrays[-number].labels) for number, item in enumerate(xrays)]
    untrained = untrained_code_generator(xrays, net=NET)
    bits = np.unpackbits(untrained.codes(pictures_of(xrays)), axis=1).mean(0)
    assert (np.abs(bits - 0.5) < 0.45).mean() > 0.8
    again = untrained_code_generator(relabelled, net=NET)
    assert np.array_equal(untrained.codes(pictures_of(xrays)), again.codes(pictures_of(xrays)))


@pytest.mark.parametrize(
    ("labels", "words"),
    [([frozenset()] * 24, "none of"), ([frozenset({"Mass"})] * 24, "same findings, 'Mass'")],
)
def test_labels_that_teach_nothing(xrays, labels, words):
    items = [replace(item, labels=own) for item, own in zip(xrays, labels, strict=True)]
    with pytest.raises(LabelsError, match=words):
        train_code_generator(items, net=NET)


def test_one_patient_cannot_be_split(xrays):
    with pytest.raises(LabelsError, match="two at least"):
        train_code_generator([replace(item, group="one") for item in xrays], net=NET)


def test_a_broken_picture_is_named(xrays, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(SlideOpenError, match=r"bad\.png"):
        train_code_generator([*xrays, Item("bad", tmp_path / "bad.png", group="0")], net=NET, max_epochs=1)


# ---- masks


def test_masks_are_learnt(predictor, lesions):
    pictures = np.stack([read_picture(item.path, (32, 24)) for item in lesions])
    given = np.stack([read_given_mask(item, (32, 24)) for item in lesions])
    assert intersection_over_union(predictor.masks(pictures), given).mean() > 0.7


def test_a_mask_depends_on_its_picture_only(predictor, lesions):
    pictures = np.stack([read_picture(item.path, (32, 24)) for item in lesions[:3]])
    alone = np.concatenate([predictor.masks(picture[None]) for picture in pictures])
    assert np.array_equal(predictor.masks(pictures), alone)


def test_a_photograph_without_a_mask_does_not_train(lesions):
    with pytest.raises(MissingMaskError, match="has no mask"):
        train_mask_predictor([*lesions[:-1], replace(lesions[-1], mask=None)], net=UNET, max_epochs=1)


def test_masks_that_are_all_empty_teach_nothing(lesions, tmp_path):
    Image.new("L", (32, 24)).save(tmp_path / "empty.png")
    items = [replace(item, mask=tmp_path / "empty.png") for item in lesions]
    with pytest.raises(LabelsError, match="empty"):
        train_mask_predictor(items, net=UNET, max_epochs=1)


def test_one_empty_mask_among_others_is_allowed(lesions, tmp_path):
    Image.new("L", (32, 24)).save(tmp_path / "empty.png")
    items = [replace(lesions[0], mask=tmp_path / "empty.png"), *lesions[1:]]
    assert MaskData(items, valid_share=0.3, size_px=(32, 24)).train_items
    assert isinstance(train_mask_predictor(items, net=UNET, valid_share=0.3, max_epochs=1), MaskPredictor)


def test_a_mask_of_another_size_is_refused(lesions, tmp_path):
    Image.new("L", (30, 24)).save(tmp_path / "wide.png")
    with pytest.raises(MissingMaskError, match="30 x 24"):
        read_given_mask(replace(lesions[0], mask=tmp_path / "wide.png"), (32, 24))


# ---- files


def test_weights_come_back_as_they_were(generator, predictor, xrays, tmp_path):
    pictures = pictures_of(xrays[:4])
    assert generator.save(tmp_path / "codes.safetensors", training={"epochs": 3}) == generator.fingerprint
    again = load_code_generator(tmp_path / "codes.safetensors")
    assert again.fingerprint == generator.fingerprint and again.findings == generator.findings
    assert np.array_equal(again.codes(pictures), generator.codes(pictures))
    predictor.save(tmp_path / "masks.safetensors")
    assert load_mask_predictor(tmp_path / "masks.safetensors").fingerprint == predictor.fingerprint
    assert "output.weight" in load_file(tmp_path / "codes.safetensors")


def test_files_of_another_kind_are_refused(generator, predictor, tmp_path):
    generator.save(tmp_path / "codes.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(WeightsError, match="sish-masks-1 is wanted"):
        load_mask_predictor(tmp_path / "codes.safetensors")
    for name in ("text.safetensors", "text.ckpt", "other.ckpt", "none.safetensors"):
        with pytest.raises(WeightsError, match=name):
            load_code_generator(tmp_path / name)


def test_weights_that_cannot_be_written(generator, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        generator.save(tmp_path / "file" / "codes.safetensors")


@pytest.mark.parametrize(
    "call",
    [
        lambda: GeneratorConfig(bits=12),
        lambda: GeneratorConfig(size_px=8),
        lambda: GeneratorConfig(dropout=1.0),
        lambda: CodeNetwork(NET, []),
        lambda: CodeNetwork(NET, ["a", "a"]),
        lambda: CodeModule(["a"], NET, learning_rate=0),
        lambda: MaskModule(UNET, alpha=-1),
        lambda: UNetConfig(channels=()),
        lambda: UNetConfig(channels=(4, 8, 16), size_px=(30, 24)),
        lambda: CodeGenerator(CodeNetwork(NET, ["a"])).codes(np.zeros((1, 8, 8), np.uint8)),
        lambda: MaskPredictor(UNet(UNET)).masks(np.zeros((1, 32, 24, 3), np.uint8)),
        lambda: split_groups([Item("a", None), Item("b", None)], 1.0),
        lambda: FindingsData([Item("a", None), Item("b", None)], batch_size=1),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ParameterError):
        call()
