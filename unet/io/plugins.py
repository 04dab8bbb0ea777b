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
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"plugins: expected a list such as [my_ops.py, my_package], found {names!r}")
    for name in names:
        if name not in _loaded:
            try:
                module = import_file(Path(name).expanduser()) if name.endswith(".py") else importlib.import_module(name)
            except UserError:
                raise
            except Exception as error:  # it is the user's code, which may raise any
                raise UserError(import_message(name, error)) from error
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
    except BaseException:
        del sys.modules[path.stem]  # it can be corrected and imported again
        raise
    return module


def import_message(name: str, error: Exception) -> str:
    """Return the message for a plugin that cannot be imported, with its line if the error is in the plugin."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).name == Path(name).name:
            place = f", line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return f"plugins: {name}{place}: {type(error).__name__}: {error}; correct it, or leave it out"


def missing_plugins(recorded: Mapping[str, str]) -> list[str]:
    """Return the plugins of a checkpoint's run that were not imported; files may now be in another folder."""
    loaded = {Path(name).name for name in _loaded}
    return [name for name in recorded if Path(name).name not in loaded]


def warn_about_changes(recorded: Mapping[str, str], path: str | Path) -> None:
    """Warn about imported plugins whose content differs from that recorded in a checkpoint."""
    loaded = {Path(name).name: digest for name, digest in _loaded.items()}
    for name, digest in recorded.items():
        if loaded.get(Path(name).name, digest) != digest:
            warnings.warn(f"{path}: plugin {name} has changed since it was trained", stacklevel=4)
