"""What is printed: no name speaks to the terminal, and none can forge a line."""

import os
import pty
import shutil
import subprocess
import sys
import unicodedata
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish.cli import main
from sish.printing import printable, warnings_on_one_line
from sish.progress import progress

EVIL = "\x1b]0;owned\x07\x1b[31m\n\rsish: error: forged\x9b2J\u202efdp\u2066 [/bold][red] \u2028\udce9"


@given(st.text())
def test_everything_printable_is_one_line_and_can_be_read_back(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()  # no lone surrogates
    if "\\" not in text:
        assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


def test_letters_of_every_language_stay():
    for name in ("größe 5 µm", "切片 1", "عينة", "срез", "a\u00a0b"):
        assert printable(name) == name


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def is_clean(text):
    return all(
        each == "\n" or each == "\t" or unicodedata.category(each) not in {"Cc", "Cf", "Cs"} for each in text
    )


@pytest.fixture
def evil_index(own_index, tmp_path):
    """An index with a slide whose id, label and file name try everything."""
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    shutil.copy(own_index.slides[0].path, folder / f"{EVIL.replace('/', '')}.tif")
    own_index.add(folder, show_progress=False)
    evil = own_index.slides[-1].slide_id
    label = EVIL.replace("\n", "").replace("\r", "").replace("\u2028", "").replace("\udce9", "")
    (tmp_path / "labels.csv").write_text(f'slide_id,label\n{own_index.slides[0].slide_id},"{label}"\n')
    own_index.relabel(tmp_path / "labels.csv")
    return own_index, evil, folder


def test_no_command_prints_a_name_raw(evil_index, capsys, tmp_path):
    index, evil, folder = evil_index
    path, page = folder / f"{evil}.tif", tmp_path / "page.html"
    for words, code in (
        (["index", "list", "--index", index.path], 0),
        (["search", path, "--index", index.path, "--report", page], 0),
        (["search", folder / "none.tif", "--index", index.path], 1),
        (["index", "add", folder, folder / "none.tif", "--index", index.path], 1),
        (["index", "remove", f"{EVIL}?", "--index", index.path], 1),
        (["index", "info", "--index", f"{tmp_path}/{EVIL}"], 1),
        (["preview", path, "-o", tmp_path / EVIL.replace("/", "")], 1),
        (["smily", "search", path, "--database", folder, "--region", "0", "0", "9", "9"], 1),
        (["train", "fit", "--data.folder", f"{tmp_path}/{EVIL[:-1]}"], 1),
    ):
        done, out, err = run(capsys, *words)
        assert done == code, err
        assert is_clean(out + err), words
        assert not any(line.startswith("sish: error: forged") for line in (out + err).splitlines())
        assert code == 0 or len(err.splitlines()) == 1
    assert is_clean(page.read_text())


@pytest.mark.parametrize(
    "words", [["search", EVIL], ["index", EVIL], ["search", "q", "--ranking", EVIL], [f"--{EVIL}"]]
)
def test_a_wrong_command_line_is_not_raw_either(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and is_clean(capsys.readouterr().err)


def test_a_bar_on_a_terminal_takes_any_name():
    code = f"""
from sish.progress import progress
with progress({EVIL!r}, 3) as bar:
    for name in ({EVIL!r}, "m[/bold]x", "[bold"):
        bar.step(name)
"""
    main_end, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=end, stderr=end, env={**os.environ, "TERM": "xterm"}
    )
    os.close(end)
    told = b""
    while True:
        try:
            told += os.read(main_end, 4096)
        except OSError:  # the process has ended
            break
    os.close(main_end)
    assert process.wait() == 0, told.decode()
    assert b"\x1b]0;owned" not in told and b"\x1b[31m" not in told


def test_lines_of_progress_in_a_log(capsys):
    with progress("adding", 1) as lines:
        lines.step(EVIL)
    err = capsys.readouterr().err
    assert is_clean(err) and err.count("\n") == 1 and err.startswith("adding: 1/1 ")


def test_a_terminal_without_the_letters_gets_escapes(own_index, tmp_path):
    shutil.copy(own_index.slides[0].path, tmp_path / "größe-切片.tif")
    own_index.add(tmp_path / "größe-切片.tif", show_progress=False)
    command = [sys.executable, "-m", "sish", "index", "list", "--index", str(own_index.path)]
    done = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0 and rb"gr\xf6\xdfe-\u5207\u7247" in done.stdout


def test_warnings_on_the_command_line_are_one_clean_line():
    with warnings_on_one_line():
        told = warnings.formatwarning(EVIL, UserWarning, "file.py", 3)
    assert is_clean(told) and told.count("\n") == 1 and told.startswith("warning: ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_output_ends_as_usual(closed, own_index):
    command = f"exec {sys.executable} -m sish index list --index {own_index.path} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
