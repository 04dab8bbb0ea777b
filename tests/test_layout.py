"""Dependencies run one way, and the network needs torch alone."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import unet

PACKAGE = Path(unet.__file__).parent

NETWORK = {
    "unet.errors": set(),
    "unet.registry": {"unet.errors"},
    "unet.geometry": {"unet.errors"},
    "unet.blocks": {"unet.errors"},
    "unet.ops": {"unet.errors", "unet.registry", "unet.geometry", "unet.blocks", "unet.ops"},
    "unet.model": {"unet.errors", "unet.registry", "unet.geometry", "unet.blocks", "unet.ops"},
    "unet.hardware": {"unet.errors", "unet.geometry"},
    "unet.receptive": {"unet.model"},
    "unet.inference": {"unet.errors", "unet.geometry"},
    "unet.symmetry": set(),
    "unet.preparation": {"unet.errors"},
    "unet.apply": {
        *("unet.errors", "unet.geometry", "unet.hardware"),
        *("unet.inference", "unet.symmetry", "unet.preparation"),
    },
    "unet.segmenter": {"unet.errors", "unet.model", "unet.receptive", "unet.apply"},
}
"""The modules of the network, and of which others of this package each may know; ``unet.ops`` stands for its files."""

NOT_THE_NETWORKS = {"lightning", "hydra", "omegaconf", "torchvision", "albumentations", "cv2", "scipy", "skimage"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def for_types_only(node: ast.AST) -> bool:
    """Is this ``if TYPE_CHECKING:``, whose imports never run?"""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(source: str) -> set[str]:
    """Dotted names that ``source`` imports, but not for types only; ``from a import b`` gives a and a.b."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports name the package"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += [child for child in ast.iter_child_nodes(node) if not for_types_only(child)]
    return found


def known_modules(name: str) -> set[str]:
    """Modules of this package that module ``name`` imports."""
    return imports_of(SOURCES[name].read_text(encoding="utf-8")) & SOURCES.keys() - {"unet"}


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_imports_are_found_wherever_they_stand():
    source = """
import a.b, c
from d import e as f
if TYPE_CHECKING:
    import never
def late():
    from g.h import i
"""
    assert imports_of(source) == {"a.b", "c", "d", "d.e", "g.h", "g.h.i"}


@pytest.mark.parametrize("name", [name for name in SOURCES if any(inside(name, part) for part in NETWORK)])
def test_a_module_of_the_network_knows_only_those_below_it(name: str):
    part = next(part for part in NETWORK if inside(name, part))
    above = [known for known in known_modules(name) if not any(inside(known, below) for below in NETWORK[part])]
    assert not above
    roots = {found.split(".")[0] for found in imports_of(SOURCES[name].read_text(encoding="utf-8"))}
    assert not roots & NOT_THE_NETWORKS
    assert roots <= {"unet", "torch"} | sys.stdlib_module_names


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: known_modules(name) - {name} for name in SOURCES if name != "unet"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", [name for name in SOURCES if name in ("unet.losses", "unet.metrics", "unet.labels")])
def test_losses_and_metrics_do_not_know_the_task(name: str):
    assert not any(inside(known, "unet.task") for known in known_modules(name))


@pytest.mark.parametrize("package", ["unet.data", "unet.callbacks", "unet.diagnostics", "unet.report", "unet.task"])
def test_what_surrounds_the_network_knows_no_operator(package: str):
    members = [name for name in SOURCES if inside(name, package)]
    assert not [name for name in members if any(inside(known, "unet.ops") for known in known_modules(name))]


@pytest.mark.slow
def test_every_module_is_imported_where_unix_modules_are_not_there():
    source = f"""
import filelock, psutil  # which use them where they are there
import importlib, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in {sorted(name for name in SOURCES if "templates" not in name)!r}:
    importlib.import_module(name)
from unet.record import peak_memory_bytes
assert peak_memory_bytes() > 2**20
"""
    done = subprocess.run([sys.executable, "-c", source], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_network_is_imported_without_lightning_hydra_or_image_libraries():
    source = f"""
import sys
from unet import CONTEXT, DOWN, UP, UNet, load
assert "torch" in sys.modules and DOWN and UP and CONTEXT
found = {NOT_THE_NETWORKS!r} & sys.modules.keys()
assert not found, found
"""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["unet.registry", "unet.model", "unet.ops"])
def test_the_tables_are_full_whichever_module_is_imported_first(module: str):
    source = f"import {module}\nfrom unet import DOWN, UP, CONTEXT\nassert DOWN and UP and CONTEXT"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
