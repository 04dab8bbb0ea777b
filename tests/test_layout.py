"""Imports run downwards only, and prediction needs neither Lightning nor albumentations."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import unet

PACKAGE = Path(unet.__file__).parent

FLOORS = (
    ("errors", "labels"),
    ("network", "failures", "visualization"),
    ("hardware",),
    ("analysis", "io"),
    ("inference", "report"),
    ("data", "task", "runs"),
    ("diagnostics", "prediction", "export"),
    ("data_check",),
    ("training",),
    ("benchmark", "demo"),
    ("commands", "__main__"),
)
"""The files and folders of ``unet/``; each may import from those on the floors before its own, and from itself."""

LIBRARIES = {
    "network": {"timm"},  # imported where model.encoder names one of its networks
    "analysis": {"numpy", "matplotlib"},
    "inference": set(),
    "hardware": set(),
    "labels": {"numpy"},
}
"""What these import besides torch and the standard library."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "templates" not in path.parts}


def imported_names(source: str) -> set[str]:
    """Dotted names that ``source`` imports anywhere, for types only included; ``from a import b`` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports name the package"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_modules(name: str) -> set[str]:
    """Return the modules of this package that module ``name`` imports."""
    return imported_names(SOURCES[name].read_text(encoding="utf-8")) & SOURCES.keys() - {"unet", name}


def room(name: str) -> str:
    """``unet.network.ops.blur`` -> ``network``."""
    return (*name.split("."), "")[1]


def run_python(source: str) -> None:
    """Run ``source`` in a new Python and fail if it fails."""
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_imports_of_every_kind_are_collected():
    source = """
import a.b, c
from d import e as f
if TYPE_CHECKING:
    import g
def late():
    from h.i import j
"""
    assert imported_names(source) == {"a.b", "c", "d", "d.e", "g", "h.i", "h.i.j"}


def test_every_part_of_the_package_is_on_one_floor():
    parts = [part for floor in FLOORS for part in floor]
    assert sorted(parts) == sorted({room(name) for name in SOURCES if name != "unet"})


@pytest.mark.parametrize("floor", range(len(FLOORS)), ids=lambda number: "-".join(FLOORS[number]))
def test_imports_run_downwards(floor: int):
    below = {part for parts in FLOORS[:floor] for part in parts}
    upwards = {
        f"{name} imports {other}"
        for name in SOURCES
        if name != "unet" and room(name) in FLOORS[floor]
        for other in imported_modules(name)
        if room(other) not in below | {room(name)}
    }
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: imported_modules(name) for name in SOURCES if name != "unet"}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("part", LIBRARIES)
def test_a_part_needs_torch_and_few_other_libraries(part: str):
    names = [name for name in SOURCES if name != "unet" and room(name) == part]
    roots = {found.split(".")[0] for name in names for found in imported_names(SOURCES[name].read_text("utf-8"))}
    assert names and roots <= {"unet", "torch", *LIBRARIES[part]} | sys.stdlib_module_names


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name) in ("data", "report", "task")])
def test_what_surrounds_the_network_knows_no_operator(name: str):
    assert not [other for other in imported_modules(name) if other.startswith("unet.network.ops")]


@pytest.mark.parametrize(
    "steps",
    [
        {
            "from unet import CONTEXT, DOWN, UP, UNet, load": "lightning hydra omegaconf torchvision scipy",
            "import unet.inference.segmenter, unet.inference.checkpoint": "lightning albumentations cv2",
            "import unet.prediction.predict_folder": "lightning albumentations",
        },
        {"import unet.runs.cli, unet.runs.run": "lightning torch", "import unet.report": "lightning torch"},
        {"import unet.training.train": "torchvision scipy.signal scipy.ndimage skimage.morphology torchmetrics.image"},
    ],
)
def test_what_is_imported_stays_light(steps: dict[str, str]):
    """After each import statement, none of the libraries beside it is loaded."""
    source = "import sys\n"
    for statement, absent in steps.items():
        source += f"{statement}\nloaded = set({absent.split()}) & sys.modules.keys()\nassert not loaded, loaded\n"
    run_python(source)


def test_torchmetrics_is_complete_for_other_code_after_the_training_is_imported():
    run_python("""
import sys
import unet.training.train
import torchmetrics
from lightning.pytorch.core.module import Metric
from concurrent.futures import ThreadPoolExecutor
assert torchmetrics.Metric is Metric and torchmetrics.__version__[0].isdigit()
with ThreadPoolExecutor(4) as pool:  # all wait for the complete package
    names = ["Accuracy", "JaccardIndex", "F1Score", "MeanMetric"]
    scores = list(pool.map(lambda name: getattr(torchmetrics, name), names))
from torchmetrics import *
import torch
score = torchmetrics.JaccardIndex("multiclass", num_classes=2)(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
assert score == 0.5 and isinstance(scores[0]("binary"), Metric)
assert "torchmetrics.image" in sys.modules
try:
    torchmetrics.no_such_metric
except AttributeError as error:
    assert "no_such_metric" in str(error)
else:
    raise AssertionError("an attribute that does not exist was found")
""")


def test_a_torchmetrics_that_was_imported_before_is_left_alone():
    run_python("""
import torchmetrics
attributes = dict(vars(torchmetrics))
from unet.training.deferred_torchmetrics import defer_torchmetrics
defer_torchmetrics()
import sys
assert sys.modules["torchmetrics"] is torchmetrics and vars(torchmetrics).items() >= attributes.items()
""")


def test_the_registries_are_complete_whichever_module_is_imported_first():
    run_python("""
import importlib, sys
for module in "unet.network.registry", "unet.network.model", "unet.network.ops":
    for name in [name for name in sys.modules if name.partition(".")[0] == "unet"]:
        del sys.modules[name]
    importlib.import_module(module)
    from unet import DOWN, UP, CONTEXT
    assert DOWN and UP and CONTEXT, module
""")


@pytest.mark.slow
def test_every_module_is_imported_where_unix_modules_are_missing():
    source = f"""
import filelock, psutil  # which use them where they are there
import importlib, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in {sorted(SOURCES)!r}:
    importlib.import_module(name)
from unet.io.provenance import peak_memory_bytes
assert peak_memory_bytes() > 2**20
"""
    run_python(source)
