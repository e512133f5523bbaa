"""What is not known is answered with the nearest that is, and makes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sish
from sish.cli import main
from sish.encoders import load
from sish.nearest import nearest


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_only_known_names_are_given_and_a_known_one_comes_first(names, data):
    word = data.draw(st.sampled_from(names))
    found = nearest(word, names)
    assert set(found) <= set(names) and len(found) <= 3
    assert found[0].lower()[:200] == word.lower()[:200]


def failing(capsys, *words):
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code in (1, 2)
    return err.splitlines()[-1]


def test_slide_ids(own_index, capsys):
    wanted = own_index.slides[0].slide_id
    typo = wanted[:-4] + wanted[-3:]
    for words in (["search", typo], ["index", "remove", typo]):
        assert repr(wanted) in failing(capsys, *words, "--index", own_index.path)


def test_filters(own_index, capsys, tmp_path):
    label = own_index.slides[0].label
    found = own_index.search(own_index.slides[0].slide_id, where={"label": label[:-1]})
    assert not found.hits and f"none has label {label[:-1]!r}" in found.note and repr(label) in found.note
    with pytest.raises(sish.QueryError, match="'label'"):
        own_index.search(own_index.slides[0].slide_id, where={"lable": label})
    with pytest.raises(sish.ParameterError, match="nearest: 'similarity'"):
        own_index.search(own_index.slides[0].slide_id, ranking="similarty")


def test_values_that_are_there_and_leave_nothing_are_told_apart(own_index):
    first = own_index.slides[0]
    found = own_index.search(first.slide_id, where={"patient": first.patient}, exclude_patient=True)
    assert not found.hits and "exclusion" in found.note


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["index", "add", "x", "--indx", "a.sish"], "'--index'"),
        (["index", "add", "x", "--index", "a.sish", "--labls=f"], "'--labels'"),
        (["search", "q", "--index", "i", "--rnking", "similarity"], "'--ranking'"),
        (["search", "q", "--index", "i", "--ranking", "similarty"], "'similarity'"),
        (["index", "crate", "--index", "x"], "'create'"),
        (["serach", "q"], "'search'"),
        (["index", "create", "--index", "x", "--recipe.wieghts=foo"], "'--recipe.weights'"),
        (["index", "create", "--index", "x", "--recipe.keys=textur"], "'texture'"),
        (["index", "create", "--index", "x", "--recipe.weights=tisue"], "'tissue'"),
        (["index", "create", "--index", "x", "--recipe.weights=mine.safetensor"], "'mine.safetensors'"),
        (["systems", "search", "yotixel", "q", "--data", "."], "'yottixel'"),
        (["smily", "biuld", "q"], "'build'"),
        (["train", "fitt"], "'fit'"),
        (["train", "fit", "--data.foldr=x"], "'--data.folder'"),
        (["train-codes", "fit", "--data.foldr=x"], "'--data.folder'"),
        (["index", "list", "--index", "archiv.sish"], "'archive.sish'"),
        (["search", "q", "--index", "i", "--search.budge=10"], "'--search.budget'"),  # no short forms
        (["train", "fit", "--data.folde=x"], "'--data.folder'"),
    ],
)
def test_commands_options_and_values(words, near, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    sish.Index.create("archive.sish")
    assert f"nearest: {near}" in failing(capsys, *words)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.safetensors", "archive.sish"}


def test_networks_of_timm(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(sish.MissingPackageError, match="nearest: 'uni'"):
        load("timm:unii")


def test_what_is_lacking_on_a_command_line_is_called_as_it_is_typed(capsys):
    assert "required: --index" in failing(capsys, "search", "q")
    for words, told in ((["-k", "five"], "a whole number"), (["--mpp", "five"], "a number")):
        error = failing(capsys, "search", "q", "--index", "i", *words)
        assert error.endswith(f"error: got {words[0]} five; want {told}")


def test_an_add_without_a_slide_makes_no_index(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no slide")
    for given_slides in (["missing"], ["empty"], ["missing", "empty"]):
        words = [tmp_path / name for name in given_slides]
        err = failing(capsys, "index", "add", *words, "--index", tmp_path / "a.sish")
        assert "no index was made" in err
        assert not (tmp_path / "a.sish").exists()
        assert "--features" not in err
    (tmp_path / "empty" / "a.h5").touch()
    assert "added by --features" in failing(
        capsys, "index", "add", tmp_path / "empty", "--index", tmp_path / "a.sish"
    )


@pytest.mark.parametrize(
    "words, lacking",
    [
        (["search"], "queries, --index"),
        (["preview"], "slide"),
        (["systems", "search"], "system, queries, --data"),
        (["train-codes", "fit"], "--data.folder"),
    ],
)
def test_words_without_dashes_and_names_with_dots_are_called_as_they_are_typed(words, lacking, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert capsys.readouterr().err.endswith(f"are required: {lacking}\n")
