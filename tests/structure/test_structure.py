"""The house itself: who may import whom, no circles, no file name twice."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "theworld"
DEPTH = 3

Graph = Mapping[str, Iterable[str]]

FORBIDDEN = {
    "theworld.config": {"theworld.data", "theworld.model", "theworld.checkpoint", "theworld.hub", "theworld.train"},
    "theworld.model": {"theworld.data", "theworld.checkpoint", "theworld.hub", "theworld.train", "theworld.download"},
    "theworld.data": {"theworld.checkpoint", "theworld.hub", "theworld.train", "theworld.download"},
    "theworld.checkpoint": {"theworld.data", "theworld.hub", "theworld.train", "theworld.download"},
    "theworld.hub": {"theworld.data", "theworld.train", "theworld.download"},
    "theworld.download": {"theworld.model", "theworld.checkpoint", "theworld.hub", "theworld.train"},
    "theworld.synthetic": {"theworld.data", "theworld.model", "theworld.train", "theworld.hub", "theworld.config"},
    "theworld.train": {"theworld.commands", "theworld.download"},
    "theworld.inference": {"theworld.train", "theworld.hub", "theworld.download"},
    "theworld.pages": {"theworld.train", "theworld.hub", "theworld.download", "theworld.inference"},
    "theworld.evaluation": {
        *("theworld.data", "theworld.model", "theworld.checkpoint", "theworld.hub", "theworld.train"),
        *("theworld.config", "theworld.download"),
    },
    "theworld.probe": {
        *("theworld.checkpoint", "theworld.hub", "theworld.train", "theworld.download", "theworld.inference"),
    },
    "theworld.monitor": {
        *("theworld.data", "theworld.model", "theworld.hub", "theworld.train", "theworld.config", "theworld.download"),
    },
    "theworld.audit": {"theworld.data", "theworld.model", "theworld.checkpoint", "theworld.hub", "theworld.train"},
}
"""Package -> packages that nothing in it may import; the rules of CONTRIBUTING.md."""

MADE_BY_THE_USER = ("slurm/site.env",)


def import_graph() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, inside functions too, not under TYPE_CHECKING."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def package_of(module: str, packages: set[str]) -> str | None:
    """The package that a module counts to, to a depth of three names; None for modules directly in ``theworld``."""
    own = module if module in packages else module.rpartition(".")[0]
    cut = ".".join(own.split(".")[:DEPTH])
    return None if cut == PACKAGE else cut


def between_packages(graph: Graph, packages: set[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for module, imported in graph.items():
        for other in imported:
            ends = package_of(module, packages), package_of(other, packages)
            if ends[0] and ends[1] and ends[0] != ends[1]:
                found[ends[0]].add(ends[1])
    return found


def circle(graph: Graph) -> str | None:
    """A circle as ``a -> b -> a``, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


def packages_on_disk() -> set[str]:
    return {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / PACKAGE).rglob("__init__.py")}


def test_no_circle_between_files() -> None:
    assert circle(import_graph()) is None


def test_no_circle_between_packages() -> None:
    assert circle(between_packages(import_graph(), packages_on_disk())) is None


def test_a_circle_would_be_seen_and_named() -> None:
    graph = import_graph()
    graph["theworld.config.schema"].add("theworld.train.run")
    assert "theworld.config.schema" in str(circle(graph))
    named = str(circle(between_packages(graph, packages_on_disk())))
    assert "theworld.config" in named
    assert "theworld.train" in named


@pytest.mark.parametrize("package", FORBIDDEN)
def test_who_may_import_whom(package: str) -> None:
    def within(module: str, name: str) -> bool:
        return module == name or module.startswith(f"{name}.")

    graph = import_graph()
    assert any(within(module, package) for module in graph), f"{package} is gone: change the rules with it"
    wrong = [
        f"{module} imports {other}"
        for module, imported in graph.items()
        if within(module, package)
        for other in imported
        if any(within(other, name) for name in FORBIDDEN[package])
    ]
    assert not wrong


def test_the_audit_and_the_configuration_stand_on_errors_alone() -> None:
    graph = import_graph()
    for module in (module for module in graph if module.startswith("theworld.audit")):
        assert all(other == "theworld.errors" or other.startswith("theworld.audit.") for other in graph[module])
    for module in (module for module in graph if module.startswith("theworld.config.")):
        assert all(other == "theworld.errors" or other.startswith("theworld.config.") for other in graph[module])


def test_no_file_name_twice() -> None:
    """Commands have the names of the scripts that run them; two packages may be run with ``python -m``."""
    modules = set((ROOT / PACKAGE).rglob("*.py")) - set((ROOT / PACKAGE / "commands").iterdir())
    names = Counter(path.name for path in modules if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_file_name_twice() -> None:
    """Pytest imports test files by their bare names: two of one name end the collection of a whole run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "module",
    [
        *("theworld", "theworld.config.load", "theworld.model", "theworld.download.start", "theworld.evaluation.score"),
        *("theworld.pulse", "theworld.commands.run_status"),
    ],
)
def test_light_modules_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_public_names_are_there() -> None:
    import theworld

    assert [name for name in theworld.__all__ if getattr(theworld, name).__name__ != name] == []
    assert f"version: {theworld.__version__}\n" in text("CITATION.cff")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        theworld.nothing  # noqa: B018


def test_commands_print_through_what_takes_credentials_and_control_characters_out() -> None:
    """A prompt without any text from elsewhere is the one thing that may be printed as it is."""
    printed = []
    for path in sorted((ROOT / "theworld" / "commands").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                printed += [f"{path.name}:{node.lineno}"] if not isinstance(node.args[0], ast.Constant) else []
    assert printed == []


def test_the_pages_for_newcomers_name_files_that_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        named = re.findall(r"`?((?:theworld|convert|recipes|tests|yamls|slurm|docs|benchmarks)/[\w./-]+)`?", text(page))
        missing = [name for name in named if not (ROOT / name.rstrip("./")).exists() and name not in MADE_BY_THE_USER]
        assert not missing, (page, missing)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")
