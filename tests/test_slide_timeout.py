"""A slide that decodes for ever: it fails after its time, the others are added, and the process ends."""

import ast
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import sish
from sish.cli import main
from sish.errors import ParameterError, SlideReadError
from sish.slides import reader_threads
from sish.slides.reader_threads import ReaderThreads, TimeLimit, start

HANGING = """
import ctypes, sys
import sish, sish.ingest, sish.queries, sish.sampling, sish.slides.reader_threads, sish.index_changes
from sish.slides.slide import open_slide

def hang(*given):  # as a decoder does: in C, deaf to signals
    print("reads", flush=True)
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

def opened(path, **given):
    slide = open_slide(path, **given)
    if "stuck" in str(path):
        slide._levels.read_level = hang
    return slide

def limited(seconds, name):  # only what hangs is on the clock, however slow the machine is
    return TimeLimit(0.5 if "stuck" in name else 0, name)

TimeLimit = sish.ingest.TimeLimit
sish.slides.reader_threads.PATIENCE_S = 0.2
sish.ingest.TimeLimit = sish.sampling.TimeLimit = limited
sish.ingest.open_slide = sish.queries.open_slide = opened
"""

ADD = """
index = sish.Index.create(sys.argv[2])
report = index.add(sys.argv[1], mpp=1.0, slide_timeout=7, show_progress=False)
print([report.added, [(it.path, it.reason) for it in report.failed], len(index)])
"""

SEARCH = """
from sish.cli import main
sys.exit(main(["search", sys.argv[1], "--index", sys.argv[2], "--mpp", "1"]))
"""


def write_picture(path, side, seed=0):
    noise = np.random.default_rng(seed).integers(-30, 30, (side, side, 3))
    Image.fromarray(np.add(noise, [200, 110, 170]).astype(np.uint8)).save(path)
    return path


def run(code, *words, **options):
    return subprocess.Popen([sys.executable, "-c", HANGING + code, *map(str, words)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # fmt: skip


@pytest.mark.slow
def test_slides_that_hang_fail_and_the_process_goes_on_and_ends(tmp_path):
    (tmp_path / "slides").mkdir()
    sides = {
        "a": 200,
        "b_stuck": 200,
        "c_stuck": 600,
        "d_stuck": 700,
        "e_stuck": 800,
        "f": 600,
    }  # 200: one patch
    for seed, (name, side) in enumerate(sides.items()):
        write_picture(tmp_path / "slides" / f"{name}.png", side, seed)
    out, error = run(ADD, tmp_path / "slides", tmp_path / "a.sish").communicate(timeout=300)
    added, failed, count = ast.literal_eval(out.strip().splitlines()[-1])
    assert (added, count, error) == (["a", "f"], 2, "")
    assert [path.rpartition("/")[2][:7] for path, _ in failed] == ["b_stuck", "c_stuck", "d_stuck", "e_stuck"]
    assert all("took longer than 0.5 s" in reason and "\n" not in reason for _, reason in failed)
    plain = sish.Index.create(tmp_path / "plain.sish")
    plain.add(
        [tmp_path / "slides" / f"{name}.png" for name in "af"], mpp=1.0, slide_timeout=0, show_progress=False
    )
    one, two = plain.snapshot(), sish.Index.open(tmp_path / "a.sish").snapshot()
    assert np.array_equal(one.barcodes, two.barcodes) and np.array_equal(one.keys, two.keys)


@pytest.mark.slow
@pytest.mark.parametrize("side", [200, 600], ids=["reading patches", "choosing the mosaic"])
def test_a_search_by_a_file_that_hangs_can_be_interrupted(built_index, tmp_path, side):
    running = run(SEARCH, write_picture(tmp_path / "stuck.png", side), built_index)
    assert running.stdout.readline().strip() == "reads"
    os.kill(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 130 and "interrupted" in error


def test_limits_that_are_none_are_refused(own_index, synthetic_slides, capsys):
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="slide_timeout"):
            own_index.add(synthetic_slides, slide_timeout=seconds, show_progress=False)
    words = ["index", "add", str(synthetic_slides), "--index", str(own_index.path), "--slide-timeout", "-1"]
    assert main([*words, "--quiet"]) == 1 and "slide_timeout=-1" in capsys.readouterr().err


class Clock:
    """Time that a test tells."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(reader_threads.time, "monotonic", lambda: self.now)


def test_only_the_time_of_work_counts(monkeypatch):
    clock, done = Clock(monkeypatch), start(lambda: "codes")
    done.result()
    limit = TimeLimit(10, "a.svs")
    with limit:
        clock.now += 6
    clock.now += 1000  # it waits for its turn
    assert limit.result(done) == "codes"
    with limit:
        clock.now += 3
        assert limit.result(done) == "codes"
        clock.now += 1
        with pytest.raises(SlideReadError, match=r"a\.svs: took longer than 10 s"):
            limit.result(done)
        assert TimeLimit(0, "a.svs").result(done) == "codes"


def test_errors_come_through_and_a_time_out_of_the_file_system_is_its_own():
    for error in (ValueError("odd"), TimeoutError("of the file system"), KeyboardInterrupt()):

        def fail(error=error):
            raise error

        for seconds in (0, 1000):
            with pytest.raises(type(error)) as caught:
                TimeLimit(seconds, "a").result(start(fail))
            assert caught.value is error


def test_threads_leave_behind_what_hangs_and_cancel_what_has_not_begun(monkeypatch):
    monkeypatch.setattr(reader_threads, "PATIENCE_S", 0.01)
    never, begun = threading.Event(), threading.Event()
    threads = ReaderThreads(1)
    hanging = threads.submit(lambda: (begun.set(), never.wait()))
    later = threads.submit(print)
    begun.wait()
    threads.close()
    assert later.cancelled() and not hanging.done()
    never.set()
    assert hanging.result()
