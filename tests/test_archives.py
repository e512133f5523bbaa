"""What takes folders alone refuses an address in PostgreSQL, and makes no folder of its name."""

import pytest

import sish
from sish.cli import main
from sish.transfer import pull

ADDRESS = "postgresql://ann:secret@db.example/slides"


@pytest.mark.parametrize(
    "command",
    [
        ["merge", ADDRESS, "shard"],
        ["merge", "out.sish", ADDRESS],
        ["status", ADDRESS],
        ["plan", "slide.png", "--shards=2", f"--index={ADDRESS}"],
    ],
)
def test_the_commands_of_shards(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["index", *command])
    (line,) = capsys.readouterr().err.splitlines()
    assert "want a folder" in line and "ann@db.example" in line and "secret" not in line
    assert not [*tmp_path.iterdir()]


def test_a_pull(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = sish.Index.create("a.sish")._store.state
    with pytest.raises(sish.ParameterError, match="want a folder"):
        pull(None, state, ADDRESS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.sish"]


@pytest.mark.parametrize("scheme", ["postgresq", "mysql", "http"])
def test_a_uri_of_another_scheme_is_no_folder_and_its_password_is_not_told(scheme):
    with pytest.raises(sish.ParameterError) as caught:
        sish.Index.open(f"{scheme}://ann:secret@db/slides")
    assert "want postgresql://" in str(caught.value) and "secret" not in str(caught.value)
