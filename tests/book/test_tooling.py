"""The project's own tools: contracts and documents agree, locks fit, workflows run what there is."""

import json
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from built_site import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gsae_book
import gsae_lib
from gsae_book.build.coverage import coverage_table, record_coverage
from gsae_book.runs.environment import versions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
LOCKED = ("book", "test", "lint", "types")


def targets() -> set[str]:
    """The targets of the Makefile that a document may name."""
    return set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, flags=re.MULTILINE))


def requirements(extra: str | None = None) -> list[Requirement]:
    """The direct dependencies of the library, or of an extra and the extras that it names."""
    found = []
    for line in EXTRAS[extra] if extra else PROJECT["project"]["dependencies"]:
        requirement = Requirement(line)
        if requirement.name == "gsae_lib":
            found += [inner for name in requirement.extras for inner in requirements(name)]
        else:
            found.append(requirement)
    return found


CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]


def test_the_list_of_contributing_is_the_contract():
    """Fails if who imports whom is written otherwise in CONTRIBUTING than import-linter checks it."""
    layers = [
        [layer.replace(" | ", ", ") for layer in contract["layers"]]
        for contract in CONTRACTS
        if contract["type"] == "layers" and not any("." in name for name in contract.get("containers", ()))
    ]
    written = re.findall(r"^```text\n(.*?)^```", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    assert [block.splitlines() for block in written] == layers


def test_contracts_cover_every_module():
    """Fails if a new room, or a new module in one, would be in no line."""
    inner = [contract for contract in CONTRACTS if "containers" in contract]
    assert all(contract["exhaustive"] and not contract.get("ignore_imports") for contract in inner)
    rooms = {"experiments"}
    for package in (gsae_lib, gsae_book):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        rooms |= {package.__name__, *(module.name for module in found if module.ispkg)}
    assert {name for contract in inner for name in contract["containers"]} == rooms


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_every_direct_dependency_in_range(path):
    """Fails if a dependency was added or raised without `make lock`, or if a line is no plain public version."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pinned = dict(line.split("==") for line in lines)
    direct = requirements() + [requirement for extra in LOCKED for requirement in requirements(extra)]
    direct += map(Requirement, PROJECT["tool"]["uv"]["constraint-dependencies"])
    missing = [str(r) for r in direct if not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))]
    assert len(direct) > 40 and not missing


def test_binder_takes_a_lock_of_its_python():
    """Fails if Binder's Python is none of ours, or its packages are not held to the lock of that Python."""
    python = (ROOT / "binder/runtime.txt").read_text().strip().removeprefix("python-")
    lines = (ROOT / "binder/requirements.txt").read_text().splitlines()
    assert python in PYTHONS
    assert [line for line in lines if not line.startswith("#")] == [
        f"-c ../locks/py{python.replace('.', '')}.txt", "-e .[book]"
    ]  # fmt: skip
    assert (ROOT / "binder" / lines[-2].removeprefix("-c ")).resolve() in LOCKS


def test_pythons_are_the_same_everywhere():
    """Fails if a supported Python has no lock, no classifier or no unit tests, or a newer one is kept out."""
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    classifiers = re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), flags=re.MULTILINE)
    assert classifiers == PYTHONS
    assert [path.stem for path in LOCKS] == ["py" + version.replace(".", "") for version in PYTHONS]
    assert WORKFLOWS["test"]["jobs"]["unit"]["strategy"]["matrix"]["python"] == PYTHONS
    assert all(version in MAKEFILE for version in PYTHONS)


@pytest.mark.parametrize("requires, accepted", [(">=3.11", True), (">=3.90", False)])
def test_another_python_is_refused_in_one_line(tmp_path, requires, accepted):
    """Fails if a Python outside the range goes on to fail in pip, or a newer one is refused."""
    (tmp_path / "pyproject.toml").write_text(f'requires-python = "{requires}"')
    command = [sys.executable, ROOT / "tests/check_python.py", tmp_path / "pyproject.toml"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) == accepted
    assert result.stderr.count("\n") == (0 if accepted else 1)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_targets_and_pins_actions(name):
    """Fails if a workflow runs what `make` does not have, uses an action without a major version, or may hang."""
    jobs = WORKFLOWS[name]["jobs"].values()
    steps = [step for job in jobs for step in job.get("steps", [])]
    runs = [word for step in steps for word in step.get("run", "").split() if "=" not in word and word != "make"]
    assert set(runs) <= targets()
    uses = [step["uses"] for step in steps if "uses" in step]
    assert uses and all(re.fullmatch(r"actions/[a-z-]+@v\d+", use) for use in uses)
    assert all("timeout-minutes" in job for job in jobs if "steps" in job)


def test_pages_are_published_only_after_the_tests():
    """Fails if a page can be published that no test has passed, or if the newest versions are never tried."""
    jobs = WORKFLOWS["publish"]["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml" and "workflow_call" in WORKFLOWS["test"][True]
    assert jobs["build"]["needs"] == "test" and jobs["deploy"]["needs"] == "build"
    weekly = json.dumps(WORKFLOWS["weekly"]["jobs"])
    assert "schedule" in WORKFLOWS["weekly"][True] and "make test" in weekly and "LOCKED" not in weekly


STUB = """#!/bin/sh
echo "ran $*"
case "$*" in *gsae_book.build.book*) exit 1;; *--nbval*) exit 5;; *) exit 0;; esac
"""


def test_a_failed_part_of_the_test_command_loses_no_other(tmp_path):
    """Fails if a book that fails keeps the tests from running, or if a failure ends with another code or unnamed."""
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    command = ["make", "-C", ROOT, "-o", "setup", "test", f"PY={stub}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Error 5" in result.stderr  # make's own code, and that of the worst part
    assert len(re.findall("^ran ", result.stdout, flags=re.MULTILINE)) == 4
    assert "make test: failed in book nbval\n" in result.stdout


def test_every_target_is_phony_and_what_documents_name_exists():
    """Fails if `make help` leaves a target out, a file of its name would stop one, or a document names another."""
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split())
    assert phony == targets() >= {"setup", "book", "test", "unit", "lint", "types", "lab", "lock", "package"}
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf8")
        calls = re.findall(r"(?:`|^)make ((?:[a-z]+ ?)+)", text, flags=re.MULTILINE)
        assert {word for call in calls for word in call.split()} <= targets(), name


def test_hooks_are_what_lint_runs():
    """Fails if a commit is checked by another tool than `make lint`, or by fewer."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)[1]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    commands = {" ".join(hook["entry"].replace(" --force-exclude", "").split("/", 2)[2].split()) for hook in hooks}
    made = {re.sub(r" (\.|notebooks/\S+|\.github/\S+)$", "", line.split("/bin/")[1]) for line in recipe.splitlines()}
    assert commands == made


def test_versions_agree():
    """Fails if the changelog, the citation, or what results record is of another version than the library."""
    version = gsae_lib.__version__
    assert re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert versions()["gsae_lib"] == version and list(versions(["no-such-package"])) == ["python"]


def test_coverage_is_recorded_and_shown(tmp_path):
    """Fails if a share is lost between the report of the tests and the page, or if a page needs a record."""
    shares = {"gsae_lib/groups.py": 98.76, "gsae_lib/theory/__init__.py": 100.0}
    files = {name: {"summary": {"percent_covered": share}} for name, share in shares.items()}
    (tmp_path / "report.json").write_text(json.dumps({"files": files, "totals": {"percent_covered": 97.0}}))
    record_coverage(tmp_path / "report.json", tmp_path / "coverage.json")
    recorded = json.loads((tmp_path / "coverage.json").read_text())
    assert recorded["modules"] == {"gsae_lib.groups": 98.8, "gsae_lib.theory": 100.0} and recorded["total"] == 97.0
    assert {"date", "commit", "versions"} <= recorded.keys()
    text = coverage_table(tmp_path / "coverage.json")
    assert "97 %" in text and "| `gsae_lib.groups` | 99 |" in text and recorded["date"] in text
    assert coverage_table(tmp_path / "absent.json") == ""
