"""The weights that come with the package."""

from pathlib import Path

DEFAULT_WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "default" / "checkpoints" / "best.safetensors"
"""The network of the default training: ``ckpt=default``."""


def checkpoint_path(name: str | Path) -> Path:
    """Return a config's ``ckpt`` as a path, ``~`` expanded; ``default`` is :data:`DEFAULT_WEIGHTS`."""
    path = Path(name).expanduser()
    return DEFAULT_WEIGHTS if str(name) == "default" and not path.exists() else path
