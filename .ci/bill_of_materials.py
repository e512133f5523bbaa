"""List all that a wheel brings: packages of an environment that has only the wheel, and foreign files in it.

    python .ci/bill_of_materials.py ENVIRONMENT/bin/python dist/sish.cdx.json

cyclonedx-py lists the packages. The files are those that THIRD_PARTY_LICENSES.txt names with their checksums.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[1]
VERSION = "1.6"
FILE = re.compile(
    r"^(?P<name>sish/\S+)\n    sha256 (?P<sha256>\w{64})\n    (?P<what>.+)\n(?:    (?P<licence>[\w.-]+))?",
    re.MULTILINE,
)
KINDS = {".onnx": "machine-learning-model", ".safetensors": "machine-learning-model", ".js": "library"}


def listed_files() -> list[dict[str, Any]]:
    """Return a component for each file of others, or made from images of others, that the wheel holds."""
    found = FILE.finditer((ROOT / "THIRD_PARTY_LICENSES.txt").read_text(encoding="utf-8"))
    return [
        {
            "type": KINDS.get(Path(one["name"]).suffix, "file"),
            "bom-ref": one["name"],
            "name": one["name"],
            "description": one["what"],
            "hashes": [{"alg": "SHA-256", "content": one["sha256"]}],
            **({"licenses": [{"license": {"id": one["licence"]}}]} if one["licence"] else {}),
        }
        for one in found
    ]


def bill(python: str) -> dict[str, Any]:
    """Return the bill of materials of an interpreter's environment, whose main component is sish."""
    words = ["environment", "--output-reproducible", "--output-format", "JSON", "--spec-version", VERSION]
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), *words, python]
    told: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    ours = [each for each in told["components"] if each["name"] == "sish"]
    told["components"] = [each for each in told["components"] if each not in ours]
    told["metadata"]["component"] = {**ours[0], "components": listed_files()}
    return told


def main() -> int:
    """Write the bill, and return 1 if it is none that the schema allows."""
    python, file = sys.argv[1:]
    text = json.dumps(bill(python), indent=1)
    if error := JsonStrictValidator(SchemaVersion.from_version(VERSION)).validate_str(text):
        print(error, file=sys.stderr)
        return 1
    Path(file).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
