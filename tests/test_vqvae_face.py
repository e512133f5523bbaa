"""The names that `sish.vqvae` offers: each is documented, and none costs an import before it is used."""

import pytest
from test_import import loaded_after

import sish.vqvae


def test_the_face_imports_no_torch():
    assert "torch" not in loaded_after("import sish.vqvae; dir(sish.vqvae)")


@pytest.mark.parametrize("name", sish.vqvae.__all__)
def test_a_name_is_there_and_listed(name: str):
    assert getattr(sish.vqvae, name).__doc__
    assert f"``{name}``" in str(sish.vqvae.__doc__)
    assert name in dir(sish.vqvae)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        _ = sish.vqvae.Decoder
