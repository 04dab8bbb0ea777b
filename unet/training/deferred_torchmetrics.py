"""Import of torchmetrics without its metrics, which Lightning does not need and a run does not use."""

import logging
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import Event, RLock
from typing import Any

NAME = "torchmetrics"


def defer_torchmetrics() -> None:
    """Import the two classes of torchmetrics that Lightning uses, and the rest when another attribute is accessed.

    The package's ``__init__`` imports every metric, and with them scipy.signal and torchvision.models: a third of the
    time in which Lightning is imported. It is executed unchanged, in the same module object, when an attribute is
    missing, so other code in this process finds the complete package. Nothing happens if it is imported already.
    """
    spec = None if NAME in sys.modules else find_spec(NAME)
    if spec is None or spec.loader is None:
        return
    package, loader, lock, started = module_from_spec(spec), spec.loader, RLock(), Event()
    names = vars(package)

    def load_attribute(name: str) -> Any:
        with lock:  # other threads wait for the complete package
            if not started.is_set():
                started.set()
                loader.exec_module(package)
            if name in names:
                return names[name]
        raise AttributeError(f"module {NAME!r} has no attribute {name!r}")

    sys.modules[NAME] = package
    try:
        names["__version__"] = import_module(f"{NAME}.__about__").__version__
        names["_logger"] = logging.getLogger(NAME)  # its modules import it from the package
        names["Metric"] = import_module(f"{NAME}.utilities.checks").Metric  # in this order, because of a circle
        names["MetricCollection"] = import_module(f"{NAME}.collections").MetricCollection
    except (ImportError, AttributeError):  # another version, which is imported as usual
        for module in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[module]
        return
    names["__getattr__"] = load_attribute
