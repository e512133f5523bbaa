"""THIRD_PARTY_LICENSES.txt names every file of others that the wheel has, by name and checksum."""

import configparser
import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from test_wheel import FOLDERS, tracked, wanted

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "THIRD_PARTY_LICENSES.txt").read_text()
NAMED = dict(re.findall(r"^(sish/\S+)\n    sha256 ([0-9a-f]{64})\n", TEXT, flags=re.MULTILINE))
"""The checksum of each named file."""
WRITTEN = {".css", ".html", ".js", ".md", ".py", ".pyi", ".typed", ".yaml"}
"""Kinds of files that are our own text, unless they lie in a folder called vendor."""


def in_the_repository(name: str) -> Path:
    """Where a file of the wheel is in the clone."""
    folder = max((f for f in FOLDERS if name.startswith(FOLDERS[f] + "/")), key=lambda f: len(FOLDERS[f]))
    return ROOT / folder / name.removeprefix(FOLDERS[folder] + "/")


def test_every_file_that_is_not_our_text_is_named():
    foreign = {name for name in wanted(tracked()) if Path(name).suffix not in WRITTEN or "/vendor/" in name}
    assert len(foreign) > 5
    assert foreign == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_the_checksum_is_that_of_the_file(name):
    assert hashlib.sha256(in_the_repository(name).read_bytes()).hexdigest() == NAMED[name]


def test_the_licence_of_openseadragon_is_there_in_full():
    assert TEXT.endswith((ROOT / "sish/serve/page/vendor/openseadragon.LICENSE.txt").read_text())


def test_the_metadata_names_the_licences_of_all_files():
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg")
    named = set(re.findall(r"^    (Apache-2.0|BSD-3-Clause)\b", TEXT, flags=re.MULTILINE))
    assert set(settings["metadata"]["license_expression"].split(" AND ")) == named
    assert "THIRD_PARTY_LICENSES.txt" in settings["metadata"]["license_files"].split()


def test_the_bill_of_materials_lists_them_too():
    spec = importlib.util.spec_from_file_location("bill", ROOT / ".ci" / "bill_of_materials.py")
    bill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bill)
    told = bill.bill(sys.executable)
    main, packages = told["metadata"]["component"], {each["name"] for each in told["components"]}
    assert main["name"] == "sish" and {"numpy", "openslide-python"} <= packages
    found = {each["name"]: each["hashes"][0]["content"] for each in main["components"]}
    assert found == NAMED
    licences = {each["name"]: each.get("licenses") for each in main["components"]}
    assert licences["sish/serve/page/vendor/openseadragon.min.js"] == [{"license": {"id": "BSD-3-Clause"}}]
