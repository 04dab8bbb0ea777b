"""Import the plugins of a run: Python files or packages that register operators, losses and data sets of one's own."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from unet.errors import UserError
from unet.io.atomic import sha256

_loaded: dict[str, str] = {}


def loaded_plugins() -> dict[str, str]:
    """Return the SHA-256 of every plugin that was imported, by its name as it was given."""
    return dict(_loaded)


def load_plugins(names: Sequence[str]) -> None:
    """Import plugins, each once.

    Args:
        names: paths of Python files, ``my_ops.py``, or names of installed packages and modules, ``my_package``.

    Raises:
        UserError: a plugin does not exist, cannot be imported, or has the name of another module.
    """
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"plugins: expected a list such as [my_ops.py, my_package], found {names!r}")
    for name in names:
        if name not in _loaded:
            module = import_file(Path(name).expanduser()) if name.endswith(".py") else import_package(name)
            _loaded[name] = sha256(Path(module.__file__)) if module.__file__ else ""


def import_file(path: Path) -> ModuleType:
    """Import a Python file as a module of its name, which pickled objects and ``_target_`` can then use."""
    if not path.is_file():
        raise UserError(f"plugins: {path}: no such file; expected a Python file, or the name of an installed package")
    if path.stem in sys.modules or importlib.util.find_spec(path.stem) is not None:
        raise UserError(f"plugins: {path}: there is a module {path.stem!r} already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a name that ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise UserError(import_message(str(path), error)) from error
    return module


def import_package(name: str) -> ModuleType:
    """Import an installed package or module."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(import_message(name, error)) from error


def import_message(name: str, error: Exception) -> str:
    """Return the message for a plugin that cannot be imported, with its line if the error is in the plugin."""
    lines, traceback = "", error.__traceback__
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).name == Path(name).name:
            lines = f", line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return f"plugins: {name}{lines}: {type(error).__name__}: {error}; correct it, or leave it out"


def check_plugins(recorded: Mapping[str, str], path: str | Path) -> None:
    """Warn of plugins with other content than those that the run of a checkpoint had."""
    loaded = {Path(name).name: digest for name, digest in _loaded.items()}
    for name, digest in recorded.items():
        if loaded.get(Path(name).name, digest) != digest:
            warnings.warn(f"{path}: plugin {name} has changed since it was trained", stacklevel=3)
