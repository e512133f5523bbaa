"""``make release-check``: each check is red where what it holds is not so."""

import importlib.util
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checks():
    spec = importlib.util.spec_from_file_location("release_check", ROOT / ".ci" / "release_check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def git(root, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path):
    """A small project that could be released today."""
    today = date.today().isoformat()
    write(tmp_path, "sish/version.py", '__version__ = "1.2.3"\n')
    write(tmp_path, "CHANGELOG.md", f"# Changelog\n\n## 1.2.3 ({today})\n\n## 1.0.0 (2020-01-01)\n")
    write(tmp_path, "CITATION.cff", f"version: 1.2.3\ndate-released: {today}\n")
    write(tmp_path, "README.md", "# sish\n" * 150)
    write(tmp_path, "Makefile", "good:\n\t@true\nbad:\n\t@echo no luck >&2; false\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "all")
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


QUICK = ["everything is committed", "one version", "date", "tag", "README", "folders"]


def states(checks, root, release, capsys, names=QUICK):
    code = checks.run_checks(checks.Project(root, release), list(names))
    *lines, last = capsys.readouterr().out.splitlines()
    found = dict(zip(names, (line.split()[0] for line in lines), strict=True))
    assert code == ("red" in found.values())
    assert last.startswith(f"{list(found.values()).count('red')} of")
    return found


def test_a_release_is_green(checks, clone, capsys):
    assert set(states(checks, clone, "1.2.3", capsys).values()) == {"green"}


def test_another_version_is_red(checks, clone, capsys):
    found = states(checks, clone, "1.2.4", capsys)
    assert (found["one version"], found["tag"]) == ("red", "red")


def test_before_a_release_the_date_and_the_tag_are_open(checks, clone, capsys):
    text = (clone / "CHANGELOG.md").read_text().replace(date.today().isoformat(), "unreleased")
    write(clone, "CHANGELOG.md", text)
    git(clone, "commit", "--quiet", "-am", "more")
    found = states(checks, clone, None, capsys)
    assert (found.pop("date"), found.pop("tag"), set(found.values())) == ("open", "open", {"green"})
    found = states(checks, clone, "1.2.3", capsys)
    assert (found["date"], found["tag"]) == ("red", "red")


@pytest.mark.parametrize(
    ("name", "text", "red"),
    [
        ("new.txt", "x", "everything is committed"),
        ("sish/version.py", '__version__ = "1.2.4"\n', "one version"),
        ("CITATION.cff", "version: 1.2\n", "one version"),
        ("README.md", "# sish\n" * 151, "README"),
        ("docs/a.md", "see /home/jane/slides\n", "folders"),
        ("docs/a.md", "`/work/main` is here\n", "folders"),
        ("docs/a.md", "python a.py --data ../shared/data\n", "folders"),
    ],
)
def test_what_is_wrong_is_red(checks, clone, capsys, name, text, red):
    write(clone, name, text)
    if red != "everything is committed":
        git(clone, "add", ".")
        git(clone, "commit", "--quiet", "-m", "more")
    assert states(checks, clone, None, capsys)[red] == "red"


def test_a_check_that_cannot_be_made_is_red(checks, clone, capsys):
    write(clone, "CITATION.cff", "- no mapping\n")
    write(
        clone, "tests/test_a.py", "import pytest\ndef test_a(): pytest.skip('not here')\ndef test_b(): pass\n"
    )
    found = states(checks, clone, None, capsys)
    assert (found["one version"], found["date"]) == ("red", "red")
    with pytest.raises(checks.Red, match="1 passed, 1 skipped"):
        checks.Project(clone, None).test("tests/test_a.py", advice="")
    with pytest.raises(checks.Red, match="git grep"):
        list(checks._hits(checks.Project(clone, None), "(", ()))


def test_a_day_that_is_none_is_red(checks, clone, capsys):
    for name in ("CHANGELOG.md", "CITATION.cff"):
        write(clone, name, (clone / name).read_text().replace(date.today().isoformat(), "2026-02-30"))
    assert states(checks, clone, None, capsys)["date"] == "red"


def test_paths_of_all_machines_are_no_fault(checks, clone, capsys):
    write(clone, "docs/a.md", "a/home/b, https://a.org/work/x, ~/work/a and /data/slides\n")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "more")
    assert states(checks, clone, None, capsys)["folders"] == "green"


def test_a_target_that_fails_or_is_not_there_is_red(checks, clone):
    project = checks.Project(clone, None)
    assert project.make("good", "") == "make good"
    with pytest.raises(checks.Red, match=r"Error 1|no luck") as error:
        project.make("bad", "mend it")
    assert error.value.args[1] == "mend it"
    with pytest.raises(checks.Red, match="has no docs"):
        project.make("docs", "")


def test_pins_are_compared_with_what_is_installed(checks, clone, monkeypatch):
    write(
        clone,
        "setup.cfg",
        "[options]\ninstall_requires =\n  A_b>=1\n[options.extras_require]\ndev =\n  c>=2\ninterop =\n",
    )
    write(clone, "constraints.txt", "# tested\na-b==1.5\nc==2.0\n")
    project = checks.Project(clone, None)
    monkeypatch.setattr(checks, "installed", lambda: {"a-b": "1.5+cpu", "c": "2.0", "other": "9"})
    assert checks.check_pins(project) == "2 pins"
    monkeypatch.setattr(checks, "installed", lambda: {"a-b": "1.6"})
    with pytest.raises(checks.Red, match=r"a-b 1\.6 is installed, 1\.5 is pinned"):
        checks.check_pins(project)
    write(clone, "constraints.txt", "c==2.0\n")
    monkeypatch.setattr(checks, "installed", dict)
    with pytest.raises(checks.Red, match="a-b is not pinned"):
        checks.check_pins(project)


def test_what_is_installed_here_is_what_is_pinned(checks):
    assert checks.check_pins(checks.Project(ROOT, None)).endswith(" pins")


@pytest.mark.slow
def test_a_wheel_is_built_and_its_metadata_are_checked(checks, clone):
    about = "[metadata]\nname = sish\nversion = 1.2.3\n"
    long = "long_description = file: README.md\nlong_description_content_type = text/markdown\n"

    def built(setup):
        write(clone, "setup.cfg", setup)
        git(clone, "add", ".")
        git(clone, "commit", "--quiet", "-m", "more")
        return checks.check_build(checks.Project(clone, None))

    write(clone, "pyproject.toml", '[build-system]\nrequires = ["setuptools"]\n')
    assert "sish-1.2.3.tar.gz" in built(about + long)
    with pytest.raises(checks.Red, match="twine check"):
        built(about)
    with pytest.raises(checks.Red, match="-m build"):
        built(about.replace("1.2.3", "nonsense"))
