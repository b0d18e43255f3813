"""Compare what the images install (requirements/*.txt) with the advisories that PyPI publishes.

Exit code 1 when one is about a version in those files. Where PyPI can't be asked that is said, and
is no failure unless --strict is given: pip-audit alone calls it "no known vulnerabilities".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parent.parent / "requirements"
TIMEOUT_S = 300


def main() -> int:
    """Print one line a file, and one an advisory; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where nothing can be said")
    strict = parser.parse_args().strict
    failed = False
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        unknown, known = report(audit(file), file.name)
        failed = failed or known or (unknown and strict)
    return 1 if failed else 0


def audit(file: Path) -> list[dict[str, Any]]:
    """Return what pip-audit says of each package; nothing when it can't say anything."""
    command = (sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes")
    options = ("--progress-spinner", "off", "--format", "json", "--requirement", str(file))
    try:
        done = subprocess.run(
            (*command, *options), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, subprocess.TimeoutExpired):
        return []
    return found


def report(packages: list[dict[str, Any]], name: str) -> tuple[bool, bool]:
    """Print the findings; return whether something is unknown, and whether something is known."""
    skipped = [package["name"] for package in packages if "vulns" not in package]
    n_audited = len(packages) - len(skipped)
    if skipped or not packages:
        what = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "") or "everything"
        print(f"{name}: NOT AUDITED: {what} (PyPI has no answer)", file=sys.stderr)
    found = [(package, each) for package in packages for each in package.get("vulns", ())]
    for package, each in found:
        fixed = ", ".join(each["fix_versions"]) or "no version yet"
        print(f"{name}: {package['name']} {package['version']}: {each['id']}, fixed by {fixed}")
    if n_audited and not found:
        print(f"{name}: {n_audited} packages, no known vulnerability")
    return bool(skipped) or not packages, bool(found)


if __name__ == "__main__":
    sys.exit(main())
