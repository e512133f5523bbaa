"""The names that `sish.index` hands on: all there, each with an example, none another's submodule."""

from importlib.util import find_spec

import pytest

import sish.index
from sish.index import guided, texture, trees


@pytest.mark.parametrize("face", [sish.index, guided, texture, trees])
def test_every_name_of_a_face_is_there(face):
    assert all(getattr(face, name).__doc__ for name in face.__all__)
    assert not [name for name in face.__all__ if find_spec(f"{face.__name__}.{name}")], "the module would win"


def test_the_face_lists_its_names_and_no_others():
    assert sorted(dir(sish.index)) == sorted(sish.index.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        sish.index.nothing  # noqa: B018


@pytest.mark.parametrize("name", sish.index.__all__)
def test_every_name_of_the_face_shows_an_example(name):
    found = getattr(sish.index, name)
    told = [found.__doc__, *(getattr(each, "__doc__", "") or "" for each in vars(found).values())]
    assert any(">>>" in text for text in told), name
