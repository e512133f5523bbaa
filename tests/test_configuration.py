"""Settings for all commands: which come first, which are refused, and what they must not do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sish
from sish.cli import main
from sish.configuration import KINDS, Setting, configuration_file, read_settings, variable_of

SAMPLES = {
    "index": ("a.sish", "b.sish"),
    "device": ("cpu", "cuda"),
    "workers": (1, 2),
    "k": (3, 4),
    "slide-timeout": (10.0, 20.0),
    "log-file": ("a.log", "b.log"),
    "verbose": (0, 1),
}


def written(folder: Path, text: str) -> dict[str, str]:
    file = folder / "config.toml"
    file.write_text(text)
    return {"SISH_CONFIG": str(file)}


def test_every_setting_has_a_sample():
    assert set(SAMPLES) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_the_environment_comes_before_the_file(name, tmp_path):
    first, second = SAMPLES[name]
    environ = written(tmp_path, f"{name} = {json.dumps(second)}")
    is_path = name in ("index", "log-file")
    from_file = Setting(str(tmp_path / second) if is_path else second, environ["SISH_CONFIG"])
    assert read_settings(environ) == {name: from_file}
    environ |= {variable_of(name): str(first)}
    assert read_settings(environ) == {name: Setting(first, variable_of(name))}
    assert read_settings(environ | {variable_of(name): ""}) == {name: from_file}  # an empty one is not set


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("divice = 'cpu'", r"got the setting 'divice'; want one of .*; nearest: 'device'$"),
        ("workers = 0", r"got workers = 0; want a whole number, 1 or more$"),
        ("workers = true", r"got workers = True; want"),
        ("workers = '4'", r"got workers = '4'; want"),
        ("k = 1.5", r"got k = 1\.5; want"),
        ("index = ''", r"got index = ''; want a folder"),
        ("slide-timeout = nan", r"got slide-timeout = nan; want seconds"),
        ("device = ['cpu']", r"want a device"),
        ("[search]\nk = 3", r"got the setting 'search'"),
        ("k = ", r"got no valid TOML"),
        ("\ud800", r"got no valid TOML"),
        ("verbose = 3", r"want 0, 1 or 2"),
        ('index = "a\\u0000b"', r"want a folder"),
        ("slide-timeout = inf", r"want seconds"),
    ],
)
def test_a_wrong_file_is_one_line(text, told, tmp_path, monkeypatch, capsys):
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(sish.ParameterError, match=told) as error:
        read_settings({"SISH_CONFIG": str(file)})
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
    monkeypatch.setenv("SISH_CONFIG", str(file))
    assert main(["demo", "--help"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"sish: error: {error.value}\n")


@pytest.mark.parametrize("name", ["workers", "k", "slide-timeout", "verbose"])
def test_a_wrong_variable_is_refused_with_its_name(name):
    with pytest.raises(sish.ParameterError, match=f"^got {variable_of(name)}='many'; want "):
        read_settings({variable_of(name): "many", "SISH_CONFIG": os.devnull})


def test_a_file_of_another_editor(tmp_path):
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbfworkers = 2\r\nk = 3\r\n")
    found = read_settings({"SISH_CONFIG": str(file)})
    assert {name: it.value for name, it in found.items()} == {"workers": 2, "k": 3}


def test_a_file_is_read_whole_or_not_at_all(tmp_path):
    with pytest.raises(sish.ParameterError, match="larger than 1 MiB"):
        read_settings(written(tmp_path, "workers = 2\n" + "#" * (1 << 20) + "\nk = 3"))


def test_help_shows_no_password(monkeypatch, capsys):
    monkeypatch.setenv("SISH_INDEX", "postgresql://ann:secret@db.example/slides")
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "secret" not in out and "(type: str, default: set, sish config shows it)" in out


def test_which_file_is_read(tmp_path, monkeypatch):
    home, base = str(tmp_path), tmp_path / "base"
    assert configuration_file({"XDG_CONFIG_HOME": str(base)}) == base / "sish" / "config.toml"
    own = Path("~/.config/sish/config.toml").expanduser()
    assert configuration_file({}) == configuration_file({"XDG_CONFIG_HOME": "relative"}) == own
    monkeypatch.setenv("HOME", "relative")  # as "~" is where the system does not know the user
    assert configuration_file({}) == Path(os.devnull) and read_settings({}) == {}
    monkeypatch.undo()
    assert read_settings({"XDG_CONFIG_HOME": home}) == {}  # none is there
    with pytest.raises(sish.ParameterError, match="there is no such file"):
        read_settings({"SISH_CONFIG": f"{home}/none.toml"})
    with pytest.raises(sish.ParameterError, match="cannot read the configuration file"):
        read_settings({"SISH_CONFIG": home})


def test_paths_in_the_file(tmp_path):
    environ = written(tmp_path, 'index = "postgresql://ann@db/slides"\nlog-file = "~/a.log"')
    values = {name: it.value for name, it in read_settings(environ).items()}
    assert values == {
        "index": "postgresql://ann@db/slides",
        "log-file": str(Path("~/a.log").expanduser()),
    }


def sish_in(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sish", *words],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_comes_first_in_real_processes(built_index, tmp_path):
    shutil.copytree(built_index, tmp_path / "a.sish")
    slide = sish.Index.open(built_index).slides[0].slide_id
    environ = written(tmp_path, f'index = "a.sish"\nk = 2\nlog-file = "{tmp_path}/file.log"')

    def hits(*words: str, **more: str) -> int:
        done = sish_in(tmp_path, "search", slide, "--json", *words, **environ, **more)
        assert done.returncode == 0, done.stderr
        return len(json.loads(done.stdout)["results"])

    assert hits() == 2
    assert " search begins, process " in (tmp_path / "file.log").read_text()
    assert hits(SISH_K="3", SISH_LOG_FILE=str(tmp_path / "variable.log")) == 3
    done = sish_in(tmp_path, "search", slide, **environ, SISH_INDEX="none.sish")
    assert done.returncode == 1 and "none.sish" in done.stderr
    line = ["--index", "a.sish", "-k", "4", "--json", "--log-file", "line.log"]
    done = sish_in(tmp_path, "search", slide, *line, **environ, SISH_INDEX="none.sish", SISH_K="3")
    assert done.returncode == 0 and len(json.loads(done.stdout)["results"]) == 4
    assert "sish search ends with exit code 0" in (tmp_path / "line.log").read_text()


def test_no_file_of_the_current_folder_is_read(built_index, tmp_path):
    for name in ("sish.toml", "config.toml", ".sish.toml", "pyproject.toml"):
        (tmp_path / name).write_text(f'index = "{built_index}"\n[tool.sish]\nindex = "{built_index}"')
    done = sish_in(tmp_path, "index", "list", SISH_CONFIG="", XDG_CONFIG_HOME=str(tmp_path / "none"))
    assert done.returncode == 2 and "--index" in done.stderr


def test_config_shows_each_setting_and_its_source(tmp_path, monkeypatch, capsys):
    text = 'index = "postgresql://ann:secret@db.example/slides?archive=breast"\nworkers = 3'
    for name, value in written(tmp_path, text).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SISH_WORKERS", "5")
    assert main(["config", "--json"]) == 0
    out = capsys.readouterr().out
    answer = json.loads(out)
    rows = {row["setting"]: (row["value"], row["source"]) for row in answer["settings"]}
    assert set(rows) == set(KINDS) and answer["file"] == str(tmp_path / "config.toml")
    assert rows["workers"] == (5, "SISH_WORKERS") and rows["k"] == (None, None)
    assert "ann" in rows["index"][0] and "secret" not in out
    assert main(["config"]) == 0
    out = capsys.readouterr().out
    assert "secret" not in out and "SISH_WORKERS" in out


def test_config_tells_a_variable_that_is_misspelt(monkeypatch, capsys):
    monkeypatch.setenv("SISH_DEVCE", "cuda")
    monkeypatch.setenv("SISH_TEST_EVERYTHING", "1")  # of others
    monkeypatch.setenv("SISH_DATA", "data")
    assert main(["config"]) == 0
    assert capsys.readouterr().err == "sish: note: SISH_DEVCE is no setting; nearest: SISH_DEVICE\n"


def test_a_place_given_to_verify_comes_before_the_setting(built_index, monkeypatch, capsys):
    monkeypatch.setenv("SISH_INDEX", "none.sish")
    assert main(["index", "verify", str(built_index)]) == 0
    monkeypatch.setenv("SISH_INDEX", str(built_index))
    assert main(["index", "verify"]) == 0
    monkeypatch.delenv("SISH_INDEX")
    assert main(["index", "verify"]) == 1
    assert "got no index; want --index" in capsys.readouterr().err
