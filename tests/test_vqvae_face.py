"""The names that `sish.vqvae` offers: documented, imported when used, and shown on their page."""

import numpy as np
import pytest
from pages import Page
from test_import import loaded_after

import sish.vqvae


def test_the_face_imports_no_torch():
    assert "torch" not in loaded_after("import sish.vqvae; dir(sish.vqvae)")


@pytest.mark.parametrize("name", sish.vqvae.__all__)
def test_a_name_is_there_and_listed(name: str):
    assert getattr(sish.vqvae, name).__doc__
    assert f"``{name}``" in str(sish.vqvae.__doc__)
    assert name in dir(sish.vqvae)


def test_the_examples_of_the_page():
    names = Page("docs/explanation/model.md").run({"patches": np.zeros((2, 256, 256, 3), np.uint8)})
    encoded, out = names["encoded"], names["out"]
    assert (encoded.codes.shape, encoded.features.shape) == ((2, 32, 32), (2, 1024))
    assert (names["images"].shape, out.quantized.codes.shape) == ((4, 3, 64, 64), (4, 8, 8))
    assert 1 <= names["perplexity"](out.quantized.counts) <= 64 > out.quantized.codes.max()
