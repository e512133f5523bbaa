"""Check that this commit can be released: one line a check, and what to do about each that fails.

    make release-check                  # is everything but the date of the release ready?
    make release-check RELEASE=0.1.0    # also the version, the dates and the tag

A check is green, or red, which ends with exit code 1. It is open if only the release itself can close it. The
tests are not run again: `.ci/run` runs them.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date as Date
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
README_LINES = 150

EXPECTED = ("LICENSE", "NOTICE", "CITATION.cff", "SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md")
"""Files at the top of the clone that a stranger looks for."""

HEADING = re.compile(r"^## (?P<version>\S+) \((?P<date>[^)]*)\)$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
MACHINE_PATHS = r"(^|[^.[:alnum:]_*~-])(/home/|/Users/|/root/|/work/|/tmp/w/)"
"""Paths that only one machine has, for ``git grep``."""
SHARED = r"\.\./shared"
SHARED_IN = ("Makefile", "benchmarks/", "tests/conftest.py", "tests/test_release_check.py", ".ci/")
"""Files that may name the folder of test data beside the clone, as a default of an option."""
INVENTED = ("tests/test_doctor.py", "tests/test_release_check.py", "sish/doctor/private.py", ".ci/")
"""Files with paths that are made up, as examples."""


class Red(Exception):
    """A check failed; the second argument says what to do."""


class Open(Exception):
    """Only the release itself can close this; the argument says how."""


@dataclass(frozen=True, slots=True)
class Project:
    """What is checked."""

    root: Path
    """The clone."""
    release: str | None
    """The version that is to be released now, without the v; None before a release."""

    def read(self, name: str) -> str:
        """Return the text of a file; Red where there is none."""
        path = self.root / name
        if not path.is_file():
            raise Red(f"there is no {name}", "add it")
        return path.read_text(encoding="utf-8")

    def run(self, *words: str, advice: str) -> str:
        """Run a command in the clone and return what it prints; Red with its last line if it fails."""
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
        done = subprocess.run(
            words, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr, flush=True)  # all of it
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise Red(f"{' '.join(words)}: {lines[-1] if lines else done.returncode}", advice)
        return done.stdout

    def test(self, *files: str, advice: str) -> str:
        """Run files of tests; Red if one fails or is skipped."""
        words = (sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *files)
        told = self.run(*words, advice=advice).splitlines()[-1]
        if "passed" not in told or "skipped" in told:
            raise Red(f"{' '.join(files)}: {told}", "run it where nothing is skipped")
        return told

    def make(self, target: str, advice: str) -> str:
        """Make a target of the Makefile; Red where it is not there."""
        if not re.search(rf"^{target}:", self.read("Makefile"), re.MULTILINE):
            raise Red(f"the Makefile has no {target}", "add it")
        self.run("make", target, advice=advice)
        return f"make {target}"


# ---- the commit and its texts


def check_tree(project: Project) -> str:
    """Check that everything is committed."""
    changed = project.run("git", "status", "--porcelain", advice="clone it again").splitlines()
    if changed:
        raise Red(f"{len(changed)} files are not committed ({changed[0][3:]})", "commit or remove them")
    return project.run("git", "rev-parse", "--short", "HEAD", advice="clone it again").strip()


def check_version(project: Project) -> str:
    """Check that all files tell one version."""
    found = re.search(r'__version__ = "(.*)"', project.read("sish/version.py"))
    changes = HEADING.search(project.read("CHANGELOG.md"))
    told = {
        "sish/version.py": found[1] if found else "none",
        "CHANGELOG.md": changes["version"] if changes else "none",
        "CITATION.cff": str(yaml.safe_load(project.read("CITATION.cff")).get("version", "none")),
    }
    if project.release is not None:
        told["RELEASE"] = project.release
    if len(set(told.values())) > 1:
        text = ", ".join(f"{name} says {version}" for name, version in told.items())
        raise Red(text, "give all of them the version of the release")
    return told["sish/version.py"]


def check_dates(project: Project) -> str:
    """Check that the newest entry of the changelog and the citation have a date."""
    changes = HEADING.search(project.read("CHANGELOG.md"))
    date = changes["date"] if changes else "no entry"
    cited = str(yaml.safe_load(project.read("CITATION.cff")).get("date-released", "no date"))
    if DATE.fullmatch(date) and cited == date:
        Date.fromisoformat(date)
        return date
    text, advice = f"CHANGELOG.md says {date}, CITATION.cff {cited}", "give both the day of the release"
    if project.release is None and not DATE.fullmatch(date):
        raise Open(f"{text}: {advice}")
    raise Red(text, advice)


def check_tag(project: Project) -> str:
    """Check that this commit has the tag of the release."""
    if project.release is None:
        raise Open("no release was named: make release-check RELEASE=VERSION on the day of the release")
    tags = project.run("git", "tag", "--points-at", "HEAD", advice="clone it again").split()
    if f"v{project.release}" not in tags:
        raise Red(f"this commit has no tag v{project.release}", f"git tag -a v{project.release}")
    return f"v{project.release}"


def check_readme(project: Project) -> str:
    """Check that the README is short enough to be read."""
    lines = len(project.read("README.md").splitlines())
    if lines > README_LINES:
        raise Red(f"README.md has {lines} lines", f"move what is over {README_LINES} into docs/")
    return f"{lines} lines"


def check_files(project: Project) -> str:
    """Check that the files are there that a stranger looks for."""
    for name in EXPECTED:
        project.read(name)
    return ", ".join(EXPECTED)


def check_paths(project: Project) -> str:
    """Check that no file names a folder that only one machine has."""
    found = [
        *_hits(project, MACHINE_PATHS, INVENTED),
        *_hits(project, SHARED, SHARED_IN),
    ]
    if found:
        raise Red(f"{len(found)} lines name folders of one machine ({found[0]})", "take them out")
    return "none of one machine"


def _hits(project: Project, pattern: str, but_in: tuple[str, ...]) -> Iterator[str]:
    """Yield the places of a pattern in the committed files."""
    words = ["git", "grep", "-InE", pattern]
    done = subprocess.run(words, cwd=project.root, capture_output=True, text=True, check=False)
    if done.returncode > 1:  # 1: nothing was found
        raise Red(f"git grep: {done.stderr.strip()}", "clone it again")
    for line in done.stdout.splitlines():
        if not line.startswith(but_in):
            yield ":".join(line.split(":", 2)[:2])


# ---- packages


def check_pins(project: Project) -> str:
    """Check that constraints.txt pins all that the project names, in the versions that are installed here."""
    pins: dict[str, str] = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", project.read("constraints.txt"), re.MULTILINE)
    }
    wrong = [
        f"{name} {version} is installed, {pins[name]} is pinned"
        for name, version in installed().items()
        if name in pins and version.partition("+")[0] != pins[name].partition("+")[0]
    ]
    loose = [name for name in direct(project) if name not in pins]
    if wrong or loose:
        text = "; ".join([*wrong, *(f"{name} is not pinned" for name in loose)])
        raise Red(text, "pip install --constraint constraints.txt, or pin what was tested")
    return f"{len(pins)} pins"


def installed() -> Mapping[str, str]:
    """Return the versions of the packages of this interpreter, by name."""
    return {canonicalize_name(each.metadata["Name"]): each.version for each in metadata.distributions()}


def direct(project: Project) -> set[str]:
    """Return the names of the packages that the project itself always needs, or for its tests."""
    setup = configparser.ConfigParser()
    setup.read_string(project.read("setup.cfg"))
    extras = setup["options.extras_require"]
    lines = "\n".join([setup["options"]["install_requires"], extras["dev"], extras["interop"]])
    return {canonicalize_name(Requirement(line).name) for line in lines.splitlines() if line.strip()}


def check_build(project: Project) -> str:
    """Check that wheel and source archive build from the committed files, and that an index takes them."""
    with tempfile.TemporaryDirectory() as folder:
        clone, dist = Path(folder, "clone"), Path(folder, "dist")
        project.run("git", "clone", "--quiet", "--no-local", ".", str(clone), advice="commit everything")
        built = Project(clone, project.release)
        build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), ".")
        built.run(*build, advice="mend setup.cfg, or MANIFEST.in")
        files = sorted(dist.iterdir())
        if [file.suffix for file in files] != [".whl", ".gz"]:
            raise Red(f"built {', '.join(file.name for file in files)}", "want a wheel and a source archive")
        twine = (sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
        built.run(*twine, advice="mend the metadata in setup.cfg, or README.md")
        return ", ".join(f"{file.name} ({file.stat().st_size / 1e6:.1f} MB)" for file in files)


def check_golden(project: Project) -> str:
    """Check that stored indexes of all format versions open and answer as they did."""
    advice = "make the release read what earlier ones wrote"
    return project.test("tests/test_store_golden.py", "tests/test_golden_indexes.py", advice=advice)


def check_forms(project: Project) -> str:
    """Check that the forms of issues and the hooks are valid."""
    return project.test("tests/test_habits.py", advice="mend .github/ or .pre-commit-config.yaml")


def check_licences(project: Project) -> str:
    """Check that the file of licences names everything of others that is shipped."""
    return project.test("tests/test_licences.py", advice="name it in THIRD_PARTY_LICENSES.txt")


def check_doctor(project: Project) -> str:
    """Check that sish doctor finds nothing broken in the environment that was tested."""
    told = project.run(sys.executable, "-m", "sish", "doctor", advice="do what it says")
    return told.splitlines()[-1]


CHECKS: dict[str, Callable[[Project], str]] = {
    "everything is committed": check_tree,
    "one version": check_version,
    "date": check_dates,
    "tag": check_tag,
    "README": check_readme,
    "files": check_files,
    "folders": check_paths,
    "pins": check_pins,
    "lint": lambda project: project.make("lint", "make lint"),
    "types": lambda project: project.make("types", "make types"),
    "golden indexes": check_golden,
    "forms and hooks": check_forms,
    "licences": check_licences,
    "documentation": lambda project: project.make("docs", "make docs tells what is wrong"),
    "doctor": check_doctor,
    "wheel and archive": check_build,
    "wheel alone": lambda project: project.make("test-wheel", "make test-wheel tells what the wheel lacks"),
    "lowest versions": lambda project: project.make("test-lowest", "raise the bound in setup.cfg"),
    "bill of materials": lambda project: project.make("sbom", "make sbom tells what is wrong"),
}
"""The checks by name, quick ones first."""


def main() -> int:
    """Run all checks and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make release-check", description="Check that this commit can be released."
    )
    parser.add_argument("--release", help="the version that is released now")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help="run only these checks")
    arguments = parser.parse_args()
    return run_checks(Project(ROOT, arguments.release or None), arguments.only or list(CHECKS))


def run_checks(project: Project, names: list[str]) -> int:
    """Run checks, print a line for each one, and return 1 if any is red."""
    width, reds = max(map(len, names)), 0
    for name in names:
        try:
            state, text = "green", CHECKS[name](project)
        except Open as reason:
            state, text = "open", str(reason)
        except Red as reason:
            state, text = "red", ": ".join(reason.args)
        except Exception as error:
            state, text = "red", f"the check itself failed: {type(error).__name__}: {error}"
        reds += state == "red"
        print(f"{state:5}  {name:{width}}  {text}", flush=True)
    print(f"{reds} of {len(names)} red")
    return int(reds > 0)


if __name__ == "__main__":
    sys.exit(main())
