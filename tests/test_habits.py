"""The forms of issues, and the hooks that run before a commit, are ones that GitHub and pre-commit take."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in TEMPLATES.glob("*.yml") if path.name != "config.yml")
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


def refused(schema, *files):
    words = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{schema}",
        *map(str, files),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_forms_keep_the_rules_of_github(tmp_path):
    assert len(FORMS) >= 4
    assert not refused("github-issue-forms", *FORMS)
    assert not refused("github-issue-config", TEMPLATES / "config.yml")
    broken = tmp_path / "broken.yml"
    broken.write_text(FORMS[0].read_text().replace("type: textarea", "type: textbox"))
    assert refused("github-issue-forms", broken)


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_each_thing_once_and_for_no_patients(form):
    asked = yaml.safe_load(form.read_text())
    ids = [field["id"] for field in asked["body"] if "id" in field]
    assert len(ids) == len(set(ids)) and asked["labels"]


@pytest.mark.parametrize("name", ["bug", "slide"])
def test_a_fault_is_told_with_the_report_of_the_doctor(name):
    asked = yaml.safe_load((TEMPLATES / f"{name}.yml").read_text())
    (doctor,) = (field for field in asked["body"] if field.get("id") == "doctor")
    assert doctor["validations"]["required"] and "sish doctor --report" in doctor["attributes"]["label"]


def test_the_hooks_are_valid_and_fetch_nothing():
    words = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    subprocess.run(words, check=True, capture_output=True)
    assert [repository["repo"] for repository in HOOKS] == ["local"]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for hook in HOOKS[0]["hooks"]:
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert hook["language"] == "unsupported" and hook["entry"].startswith(".venv/bin/")
        assert program == "python" or f"\n{program}>=" in extras["dev"], program
        assert shutil.which(program, path=str(Path(sys.executable).parent)), program
