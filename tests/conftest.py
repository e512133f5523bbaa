"""Fixtures that every test may use."""

import os
import shutil
import signal
import sys
from pathlib import Path

import hypothesis
import pytest
from without_torch import skip_what_needs_torch

import sish
from sish.configuration import FILE_VARIABLE, KINDS, variable_of
from sish.demo.synthetic import write_slides
from sish.systems.item import Item

skip_what_needs_torch()
# The first call of a kernel compiles it, which takes longer than hypothesis lets an example take.
hypothesis.settings.register_profile("sish", deadline=None)
hypothesis.settings.load_profile("sish")
pytest.register_assert_rewrite("system_contract")

# The settings of whoever runs the tests are none of theirs.
for _name in [name for name in os.environ if name in map(variable_of, KINDS)]:
    del os.environ[_name]
os.environ[FILE_VARIABLE] = os.devnull

# Tests that a shell starts in the background ignore SIGINT, and so would the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Torch's own, whichever tests came before; numpy's generators are seeded where they are made."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data: ``$SISH_DATA``, else ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("SISH_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SISH_DATA to a folder that holds it")
    return folder


@pytest.fixture(scope="session")
def synthetic_slides(tmp_path_factory) -> Path:
    """A folder of eight small generated slides with its labels.csv; not to be written to."""
    folder = tmp_path_factory.mktemp("synthetic") / "slides"
    write_slides(folder, n_slides=8, seed=0, side_um=700)
    return folder


@pytest.fixture(scope="session")
def built_index(synthetic_slides, tmp_path_factory) -> Path:
    """An index of the generated slides; not to be written to: take `own_index` for that."""
    path = tmp_path_factory.mktemp("built") / "archive.sish"
    report = sish.Index.create(path).add(
        synthetic_slides, labels=synthetic_slides / "labels.csv", show_progress=False
    )
    assert len(report.added) == 8
    return path


@pytest.fixture
def own_index(built_index, tmp_path) -> sish.Index:
    """A copy of the built index that the test may change."""
    shutil.copytree(built_index, tmp_path / "own.sish")
    return sish.Index.open(tmp_path / "own.sish")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[Item, ...]:
    """Twelve small images for search systems, see `system_contract`."""
    from system_contract import write_pictures

    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def marked_archive(tmp_path_factory) -> Path:
    """An index for tests of the page, see `marked_slides`; not to be written to."""
    from marked_slides import write_archive

    return write_archive(tmp_path_factory.mktemp("marked"))


@pytest.fixture(scope="session")
def marked_index(marked_archive) -> sish.Index:
    """The index behind the page, to ask what the page should show."""
    return sish.Index.open(marked_archive)


@pytest.fixture(scope="module")
def service(marked_archive):
    """A server of the marked archive."""
    from served import served

    with served(sish.Index.open(marked_archive)) as service:
        yield service


@pytest.fixture
def client(service):
    """A client of the module's server that shows the token."""
    from served import client_of

    with client_of(service) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    """A browser; one for each module, because its loop of events would be in the way of other tests."""
    from browsers import browsing

    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser, service):
    """The page of the marked archive, which must stay clean."""
    from browsers import clean_page
    from marked_slides import GONE

    with clean_page(browser, service.origin, reduced_motion="reduce") as page:
        page.expected.append(f"/api/slides/{GONE}/thumbnail")  # the browser says that a picture is missing
        page.expected.append("Ignoring tile")  # OpenSeadragon: a slide was left before its tiles had come
        page.goto(service.url)
        yield page


@pytest.fixture(scope="session", params=("wheel", "debian"))
def postgres(request):
    """Each kind of PostgreSQL server in turn; a test may stop, crash and restart it."""
    from postgres_servers import serving

    with serving(request.param) as server:
        yield server


@pytest.fixture
def database(postgres):
    """A fresh database of each kind of PostgreSQL server in turn."""
    with postgres.database() as database:
        yield database


@pytest.fixture(scope="session")
def two_servers():
    """Two PostgreSQL servers that can hold each other's tables (the wheel has no postgres_fdw)."""
    from postgres_servers import serving

    with serving("debian") as first, serving("debian") as second:
        yield first, second


@pytest.fixture
def two_databases(two_servers):
    """A fresh database on each of two servers; the first may use the second's tables."""
    from postgres_servers import with_foreign_tables

    first, second = two_servers
    with first.database() as front, second.database() as remote:
        yield with_foreign_tables(front, remote), remote
