"""Outputs: never over an input, never into an index, whole or not at all."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sish
from sish.cli import main
from sish.errors import OutputError, ParameterError
from sish.outputs import write_output

OURS = (".html",)


def by_itself(path, other):
    return path


def by_a_link(path, other):
    other.symlink_to(path)
    return other


def by_a_hard_link(path, other):
    os.link(path, other)
    return other


def by_way_of_its_folder(path, other):
    return path.parent / ".." / path.parent.name / path.name


NAMES = [by_itself, by_a_link, by_a_hard_link, by_way_of_its_folder]


@pytest.mark.parametrize("naming", NAMES)
def test_an_input_stays_under_every_name(naming, tmp_path):
    kept = tmp_path / "kept.html"
    kept.write_bytes(b"an input")
    with pytest.raises(ParameterError, match="give another path"):
        write_output(naming(kept, tmp_path / "other.html"), b"new", inputs=["an-id", kept], replaces=OURS)
    assert kept.read_bytes() == b"an input"


def test_a_link_is_followed_and_a_link_to_an_input_is_not_another_file(tmp_path):
    page, link = tmp_path / "page.html", tmp_path / "latest.html"
    page.write_text("old")
    page.chmod(0o640)
    link.symlink_to(page)
    write_output(link, b"new", replaces=OURS)
    assert link.is_symlink() and page.read_text() == "new" and page.stat().st_mode & 0o777 == 0o640
    by_link = tmp_path / "input.html"
    by_link.symlink_to(page)
    with pytest.raises(ParameterError, match="is an input"):
        write_output(page, b"newer", inputs=[by_link], replaces=OURS)


def test_files_of_another_kind_and_write_protected_ones_stay(tmp_path):
    for name in ("thesis.docx", "noending"):
        (tmp_path / name).write_text("years of work")
        with pytest.raises(ParameterError, match=r"no \.html file"):
            write_output(tmp_path / name, b"new", replaces=OURS)
        assert (tmp_path / name).read_text() == "years of work"
    (tmp_path / "page.html").write_text("kept")
    (tmp_path / "page.html").chmod(0o444)
    if not os.access(tmp_path / "page.html", os.W_OK):  # root may write to anything
        with pytest.raises(OutputError, match="Permission denied"):
            write_output(tmp_path / "page.html", b"new", replaces=OURS)


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(failing, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")

    def fail(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(OutputError, match="No space left"):
        write_output(page, b"new", replaces=OURS)
    assert page.read_text() == "old" and list(tmp_path.iterdir()) == [page]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(pipe, b"through", replaces=OURS)
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)


def test_a_pipe_without_a_name_is_written_to():
    read, write = os.pipe()
    write_output(f"/proc/self/fd/{write}", b"through", replaces=OURS)  # where /dev/stdout leads
    assert os.read(read, 100) == b"through"
    os.close(read)
    os.close(write)


# ---- what users type


def test_answers_to_nothing_replace_no_page_and_no_name_is_no_page(own_index, tmp_path, capsys):
    page = tmp_path / "page.html"
    page.write_text("an earlier answer")
    words = ["search", "none", "nothing", "--index", str(own_index.path), "--report"]
    assert main([*words, str(page)]) == 1 and page.read_text() == "an earlier answer"
    capsys.readouterr()
    assert main(["search", own_index.slides[0].slide_id, *words[3:], ""]) == 1
    assert "give another path" in capsys.readouterr().err


def digest_of_folder(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.parametrize("naming", NAMES)
def test_a_report_replaces_neither_the_query_nor_an_indexed_slide(naming, own_index, tmp_path, capsys):
    query, other = (tmp_path / f"{name}.html" for name in ("query", "indexed"))
    for copy, row in ((query, own_index.slides[0]), (other, own_index.slides[1])):
        shutil.copy(row.path, copy)
        shutil.copy(row.path, copy.with_suffix(".tif"))
        copy.with_suffix(".html").unlink()
        os.link(copy.with_suffix(".tif"), copy)  # the ending of a page does not make it one
    own_index.add(other.with_suffix(".tif"), show_progress=False)
    before = digest_of_folder(tmp_path)
    for number, slide in enumerate((query, other)):
        report = naming(slide, tmp_path / f"link-{number}.html")
        words = ["search", query.with_suffix(".tif"), "--index", own_index.path, "--report", report]
        assert main(list(map(str, words))) == 1
        captured = capsys.readouterr()
        assert "is an input" in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert {path: data for path, data in digest_of_folder(tmp_path).items() if path in before} == before


@pytest.mark.parametrize("name", ["manifest.json", "report.html", "segments/report.html", "more/a.html"])
def test_nothing_is_written_into_an_index(name, own_index, tmp_path):
    (own_index.path / "more").mkdir()
    before = digest_of_folder(own_index.path)
    link = tmp_path / "link.sish"
    link.symlink_to(own_index.path)
    results = own_index.search(own_index.slides[0].slide_id, k=1)
    for folder in (own_index.path, link):
        with pytest.raises(sish.ParameterError, match="inside the index"):
            sish.write_report(results, folder / name, index=own_index)
    assert digest_of_folder(own_index.path) == before


def test_a_preview_replaces_a_picture_and_never_its_slide(synthetic_slides, tmp_path, capsys):
    slide, picture = tmp_path / "slide.png", tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(pixels).save(slide)
    before = slide.read_bytes()
    assert main(["preview", str(slide), "-o", str(slide), "--mpp", "0.5"]) == 1
    assert slide.read_bytes() == before and "is an input" in capsys.readouterr().err
    for _ in range(2):
        assert main(["preview", str(slide), "-o", str(picture), "--mpp", "0.5"]) == 0
    assert Image.open(picture).format == "PNG" and {*tmp_path.iterdir()} == {slide, picture}
