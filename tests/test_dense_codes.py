"""Windows encoded together are the windows encoded alone, but for their borders."""

import numpy as np
import pytest

from benchmarks.dense_codes import WINDOW_PX, DenseEncoder, border_effect
from sish.errors import ParameterError
from sish.index.keys import order_codebook, paper_keys
from sish.vqvae.pretrained import load_encoder, shipped_model


@pytest.fixture(scope="module")
def dense():
    """Calibrated by the weights, or by pixels where they are not."""
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    return DenseEncoder([noise])


@pytest.fixture(scope="module")
def picture():
    """Smooth colours and noise, uint8 (160, 192, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :192][..., None] / 30
    smooth = 150 + 60 * np.sin(x + 2 * np.sin(y) + np.arange(3))
    return np.clip(smooth + rng.normal(0, 15, (160, 192, 3)), 0, 255).astype(np.uint8)


def test_a_picture_of_one_window_is_that_window(dense, picture):
    """Both see the same border then, so that only bfloat16 is left."""
    window = picture[:WINDOW_PX, :WINDOW_PX]
    codes = dense.encode(window)
    assert codes.barcodes.shape == (1, 128)
    assert np.bitwise_count(codes.barcodes ^ dense.alone(window[None])).sum() <= 16
    encoder = load_encoder()
    key = paper_keys(encoder.encode(window[None]).codes, order_codebook(encoder.codebook))
    assert abs(int(codes.keys[0]) - int(key[0])) < 0.02 * int(key[0])


def test_windows_come_row_by_row(dense, picture):
    codes = dense.encode(picture)
    assert len(codes.barcodes) == len(codes.keys) == 5 * 9
    right = dense.encode(picture[:, 8:])
    bits = np.bitwise_count(codes.barcodes.reshape(5, 9, 128)[:, 4] ^ right.barcodes.reshape(5, 8, 128)[:, 3])
    assert bits.sum(axis=-1).max() < 60  # other borders of the whole picture only; others differ by more
    assert border_effect(dense, picture, 4) < 150


def test_weights_without_calibration_are_measured_on_images(picture):
    def bare():
        model = shipped_model()
        model.pooled.patches.zero_()
        return model

    dense = DenseEncoder([picture, picture[::-1]], bare())
    barcodes = dense.encode(picture).barcodes
    set_bits = np.unpackbits(barcodes, axis=1).mean()
    assert 0.3 < set_bits < 0.7  # standardised: neighbours are as often greater as smaller
    with pytest.raises(ParameterError, match="give images"):
        DenseEncoder([], bare())
