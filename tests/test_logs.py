"""The log of a command: on standard error with -v, in a file with --log-file, and from Python by handlers."""

import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import sish
from sish.cli import main
from sish.cli.logs import LogChoice, taken_from

RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING|ERROR) [\w.]+: .+")


def handlers():
    names = ("sish", "tifffile", "pytorch_lightning")
    return [*map(list, (logging.getLogger(name).handlers for name in names)), logging.getLogger("sish").level]


@pytest.fixture(autouse=True)
def _nothing_stays():
    before = handlers()
    yield
    assert handlers() == before


def add(slides, tmp_path, *more):
    words = ["index", "add", *slides, "--index", tmp_path / "a.sish", "--quiet", *more]
    return main([*map(str, words)])


def test_a_log_file_tells_each_slide_and_commit(synthetic_slides, tmp_path, capsys):
    (tmp_path / "broken.svs").write_bytes(b"no slide")
    log = tmp_path / "add.log"
    assert add([synthetic_slides, tmp_path / "broken.svs"], tmp_path, "--log-file", log) == 1
    lines = log.read_text().splitlines()
    assert all(map(RECORD.fullmatch, lines)), lines
    text = log.read_text()
    for row in sish.Index.open(tmp_path / "a.sish").slides:
        assert f"slide {row.slide_id} begins: {row.path}" in text
        assert re.search(rf"slide {row.slide_id} ends: {row.n_patches} patch(es)? in \d+\.\d s", text)
    committed = re.findall(r"INFO sish.slide_writer: committed \d+ patch(?:es)? of (\d+) slides?", text)
    assert sum(map(int, committed)) == 8
    assert re.search(r"WARNING sish.ingest: skipped: .*broken\.svs", text)
    assert "begins, process" in lines[0] and "exit code 1" in lines[-1]
    assert "sish.ingest" not in capsys.readouterr().err  # a log file changes nothing on the screen


def test_a_log_is_appended_and_has_the_errors(tmp_path, capsys):
    log = tmp_path / "a.log"
    log.write_text("what was there\n")
    assert main(["index", "list", "--index", str(tmp_path / "none.sish"), "--log-file", str(log)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("sish: error: ") and "\n" not in error
    lines = log.read_text().splitlines()
    assert lines[0] == "what was there"
    assert any(line.endswith(f"ERROR sish.cli.logs: {error}") for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        ["-v", "index", "list", "--index", "INDEX"],
        ["index", "-v", "list", "--index", "INDEX"],
        ["index", "list", "--index", "INDEX", "--verbose"],
        ["systems", "list", "-v"],
    ],
)
def test_verbose_may_stand_anywhere(words, built_index, capsys):
    words = [str(built_index) if word == "INDEX" else word for word in words]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^\d\d:\d\d:\d\d INFO sish.cli.logs: sish .* begins", err)
    assert main([word for word in words if word not in ("-v", "--verbose")]) == 0
    quiet = capsys.readouterr()
    assert (quiet.out, quiet.err) == (out, "")


def test_errors_are_on_the_screen_once_with_verbose(tmp_path, capsys):
    assert main(["-vv", "index", "list", "--index", str(tmp_path / "none.sish")]) == 1
    assert capsys.readouterr().err.count("sish: error:") == 1


def test_the_name_of_a_slide_cannot_forge_a_record(tmp_path, capsys):
    folder = tmp_path / "slides"
    folder.mkdir()
    name = "a\n2026-01-01T00:00:00+0000 ERROR sish: forged\x1b[31m.png"
    Image.new("RGB", (300, 300), "purple").save(folder / "ok.png")
    (folder / name).write_bytes(b"none")
    log = tmp_path / "a.log"
    assert add([folder], tmp_path, "--mpp", "1", "--log-file", log, "-vv") == 1
    assert "\\n2026-01-01" in log.read_text() and "\x1b" not in log.read_text()
    assert all(map(RECORD.fullmatch, log.read_text().splitlines()))
    err = capsys.readouterr().err
    assert "\x1b" not in err and not re.search("^2026-01-01", err, re.MULTILINE)


def test_a_fault_is_in_the_log_and_its_text_cannot_forge_a_record(built_index, tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("a fault\n2026-01-01T00:00:00+0000 INFO sish: forged")

    monkeypatch.setattr(sish.Index, "slides", property(fail))
    log = tmp_path / "a.log"
    with pytest.raises(RuntimeError, match="a fault"):
        main(["index", "list", "--index", str(built_index), "--log-file", str(log)])
    text = log.read_text()
    assert "    RuntimeError: a fault" in text and "in fail" in text
    assert not re.search("^2026-01-01", text, re.MULTILINE)
    assert "exit code 1" in text.splitlines()[-1]


@pytest.mark.parametrize("name", ["none", "slide.svs", "a" * 300 + ".log"])
def test_a_log_that_could_not_go_on_is_not_begun(name, tmp_path, capsys):
    assert main(["config", "--log-file", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full: Linux only")
def test_what_is_shown_cannot_stop_a_command(built_index):
    words = [sys.executable, "-m", "sish", "-vv", "index", "list", "--index", built_index]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 8
    reading, writing = os.pipe()
    os.close(reading)  # as in `sish -v index list | head -0`
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1 and "begins, process" in done.stderr and "lost sys.stderr" not in done.stderr


def test_no_word_beside_the_name_of_a_command_is_in_the_log(tmp_path, capsys):
    log, secret = tmp_path / "a.log", "--index=postgresql://ann:secret@127.0.0.1:1/slides"
    assert main(["index", "list", secret, "--log-file", str(log)]) == 1
    for words in (["index", secret, "list"], ["secret"], [secret, "search"]):
        with pytest.raises(SystemExit):
            main([*words, "--log-file", str(log)])
    text = log.read_text()
    assert "secret" not in text and text.count("sish index list begins") == 1


def test_a_log_replaces_and_spoils_no_other_file(built_index, tmp_path, capsys):
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"pixels")
    places = {
        slide: "is there and is no .log file",
        built_index / "a.log": "lies inside the index",
        tmp_path / "none" / "a.log": "cannot write the log",
    }
    for place, reason in places.items():
        assert main(["index", "list", "--index", str(built_index), "--log-file", str(place)]) == 1
        out, err = capsys.readouterr()
        assert not out and reason in err and err.count("\n") == 1
    assert slide.read_bytes() == b"pixels"
    assert main(["index", "list", "--index", str(built_index), "--log-file"]) == 1
    assert "--log-file without a file" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full: Linux only")
def test_a_full_disk_ends_the_log_and_not_the_command(built_index, capsys):
    assert main(["index", "list", "--index", str(built_index), "--log-file", "/dev/full"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 8
    assert err.count("\n") == 1 and "the log /dev/full ends here" in err and "No space left" in err


def test_details_are_told_with_two_letters_only(built_index, capsys, monkeypatch):
    monkeypatch.setenv("SISH_INDEX", str(built_index))
    monkeypatch.setenv("SISH_K", "3")
    for words, has_details in ((["-v"], False), (["-vv"], True), (["-v", "-v"], True)):
        assert main(["search", "adipose-01", *words]) == 0
        err = capsys.readouterr().err
        assert ("DEBUG sish.index_search: searching generation" in err) == has_details
        assert ("the setting k is from SISH_K" in err) == has_details
        assert "INFO sish.index_search: query adipose-01" in err


def test_a_killed_add_has_logged_what_it_did(synthetic_slides, tmp_path):
    log, index = tmp_path / "add.log", tmp_path / "a.sish"
    words = ["index", "add", synthetic_slides, "--index", index, "--quiet", "--log-file", log]
    process = subprocess.Popen([sys.executable, "-m", "sish", *map(str, words)], env=os.environ)
    while process.poll() is None and not (log.exists() and "ends: " in log.read_text()):
        time.sleep(0.01)
    process.kill()
    process.wait()
    lines = log.read_text().splitlines(keepends=True)
    assert all(RECORD.fullmatch(line.rstrip("\n")) for line in lines if line.endswith("\n"))
    assert f"process {process.pid}" in lines[0]
    assert not any("ends with exit code" in line for line in lines)


def test_python_gets_the_records_and_the_library_shows_none(synthetic_slides, tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO, logger="sish")
    index = sish.Index.create(tmp_path / "a.sish")
    index.add(synthetic_slides, show_progress=False)
    index.search(index.slides[0].slide_id)
    told = [(record.name, record.getMessage()) for record in caplog.records]
    assert ("sish.ingest", f"{index.path}: 8 slides to add, 0 already there") in told
    assert any(name == "sish.index_search" and text.endswith("5 hits") for name, text in told)
    assert all(name.startswith("sish.") for name, _ in told)
    assert capfd.readouterr() == ("", "")


def test_importing_sish_configures_no_logger_but_its_own():
    code = (
        "import logging, sish\n"
        "assert not logging.root.handlers and logging.root.level == logging.WARNING\n"
        "assert [type(it) for it in logging.getLogger('sish').handlers] == [logging.NullHandler]\n"
        "logging.getLogger('sish.ingest').error('not shown')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


WORDS = st.lists(
    st.sampled_from(["-v", "-vv", "-k", "3", "a.svs", "--log-file=x.log", "--", "--value", "-1"])
)


@given(WORDS)
def test_other_words_stay_in_order(words):
    choice, rest = taken_from(words)
    ours = words[: words.index("--")] if "--" in words else words
    after = words[len(ours) :]
    logs = ("-v", "-vv", "--log-file=x.log")
    assert rest == [word for word in ours if word not in logs] + after
    verbosity = ours.count("-v") + 2 * ours.count("-vv")
    assert choice == LogChoice(verbosity, "x.log" if "--log-file=x.log" in ours else None)


def test_every_record_can_be_written_by_any_handler(synthetic_slides, tmp_path, caplog):
    folder = tmp_path / "a\udce9"  # a name of another encoding
    folder.mkdir()
    (folder / "broken\udce9.svs").write_bytes(b"no slide")
    whole = next(synthetic_slides.glob("*.tif"))
    (folder / "whole\udce9.tif").write_bytes(whole.read_bytes())
    with caplog.at_level(logging.DEBUG, "sish"):
        index = sish.Index.create(folder / "a.sish")
        index.add(folder, show_progress=False)
        index.search(index.slides[0].slide_id, k=1)
        main(["search", str(folder / "none\udce9.svs"), "--index", str(index.path)])
    records = [record.getMessage() for record in caplog.records if record.name.startswith("sish")]
    assert any("skipped" in text for text in records) and any("query whole" in text for text in records)
    for text in records:
        text.encode("utf-8")
        assert text.isprintable()
