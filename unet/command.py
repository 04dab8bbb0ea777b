"""Around a Hydra command: clear errors, exit statuses, and folder names made from what was chosen.

Nothing here imports torch, so that ``--help``, ``--cfg job`` and shell completion answer at once.
"""

import functools
import hashlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unet.errors import UserError, did_you_mean
from unet.faults import fault, plain
from unet.record import flatten, is_runtime_key

# OpenMP threads that spin at every barrier stand in each other's way on a busy machine, and sleeping ones wake late: a
# short spin (tens of microseconds) is near the best of both. Read by OpenMP when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
"""Whether the user asked for tracebacks; read before this module sets the variable for Hydra itself."""

AUTO = "auto"
"""The value of ``resume`` with which a command finds the run that it began."""

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def slug(prefix: str, overrides: Sequence[str]) -> str:
    """What was chosen, as part of a folder's name: no separators or blanks, at most 150 characters, unique where cut.

    ``["model.down=max", "ckpt_path=..."]`` -> ``model.down=max``: a resumed run is not another run.
    """
    chosen = [override for override in overrides if not override.startswith("ckpt_path=")]
    names = [re.sub(r"[^\w.,=+\-\[\]{}:]+", "_", shortened(override, 48)) for override in chosen]
    return prefix * bool(names) + shortened(",".join(names), 150)


def shortened(text: str, most: int) -> str:
    """``text``, or where it is longer than ``most`` its beginning and a hash of the whole."""
    return text if len(text) <= most else f"{text[: most - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def swept(overrides: Sequence[str], parameters: Mapping[str, str] | None) -> list[str]:
    """The keys that a sweep varies, from its command line and its config.

    A job's own overrides no longer tell them from those that all jobs share. So this is asked once, of the whole
    sweep's config, and the jobs get the answer from the resolver's cache.
    """
    parsed = parse(overrides, parameters)
    return list(dict.fromkeys(override.get_key_element() for override in parsed if override.is_sweep_override()))


def parse(overrides: Sequence[str], parameters: Mapping[str, str] | None) -> list[Override]:
    """A sweep's overrides: those of its config (``hydra.sweeper.params``), then those of its command line."""
    chosen = [*(f"{key}={value}" for key, value in (parameters or {}).items()), *overrides]
    return OverridesParser.create().parse_overrides(chosen)


def sweep_name(overrides: Sequence[str]) -> str:
    """What a sweep varies, for people, and a hash of what else was chosen; more seeds belong to the same sweep.

    ``["sweep=up", "model.down=max,avg", "seed=0,1"]`` -> ``up,model.down=max,avg``.
    """
    keyed = [(override.lstrip("+").partition("=")[0], override) for override in overrides]
    chosen = [override for key, override in keyed if key != "seed" and not is_runtime_key(key)]
    varied = [override for override in chosen if override.partition("=")[0] in ("sweep", *swept(chosen, None))]
    rest = [override for override in chosen if override not in varied]
    digest = hashlib.sha256(json.dumps(sorted(rest)).encode()).hexdigest()[:8] if rest else ""
    named = [override.removeprefix("sweep=") for override in varied]
    return "_".join(filter(None, [slug("", named) or "seeds", digest]))


def job_name(overrides: Sequence[str], keys: Sequence[str], *, _root_: DictConfig) -> str:
    """A job's folder: what the sweep varied, for people, and a hash of the whole configuration, which decides.

    The same configuration has the same folder, however it is written and whenever it is run.
    """
    chosen = [override for override in overrides if override.partition("=")[0] in keys]
    return name_by_what(Path(_root_.hydra.sweep.dir), chosen, _root_)


def name_by_what(parent: Path, chosen: Sequence[str], config: DictConfig) -> str:
    """The folder in ``parent`` of just this configuration: the one that is there, or what was chosen and a hash."""
    text = json.dumps(with_names(what(config)), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    existing = next(parent.glob(f"*{digest}"), None)
    return existing.name if existing else "_".join(filter(None, [slug("", chosen), digest]))


def with_names(values: Any) -> Any:
    """Nested values with text for every key: numbers and words have no order among each other."""
    if isinstance(values, dict):
        return {str(key): with_names(value) for key, value in values.items()}
    return [with_names(value) for value in values] if isinstance(values, list) else values


def what(config: DictConfig) -> dict[str, Any]:
    """Return the resolved values that identify a run by dotted key: all but :data:`unet.record.RUNTIME_KEYS`."""
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if not is_runtime_key(str(key))])
    values: Any = OmegaConf.to_container(kept, resolve=True)
    return {key: value for key, value in flatten(values).items() if not is_runtime_key(key)}


def quoted(value: str) -> str:
    """A text as Hydra's command line takes it, whatever it holds."""
    return QuotedString(value, Quote.single).with_quotes()


def run_dir(
    ckpt_path: str | None, new: str, resume: str | None = None, overrides: Sequence[str] = (), *, _root_: DictConfig
) -> str:
    """The folder of a single run.

    A resumed run goes on in its own, the one that holds ``checkpoints/<file>``. With ``resume=auto`` the configuration
    decides, so that the same command finds it again, beside ``new``. Any other gets ``new``.
    """
    path = Path(ckpt_path or "")
    if ckpt_path and path.parent.name == "checkpoints":
        return str(path.parent.parent)
    if resume == AUTO:
        chosen = [override for override in overrides if not is_runtime_key(override.lstrip("+").partition("=")[0])]
        return str(Path(new).parent / name_by_what(Path(new).parent, chosen, _root_))
    return new


OmegaConf.register_new_resolver("slug", slug, replace=True)
OmegaConf.register_new_resolver("swept", swept, replace=True, use_cache=True)
OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True, use_cache=True)
OmegaConf.register_new_resolver("job_name", job_name, replace=True)
OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def verbatim(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """A command line on which the values of ``keys``, which are paths, mean what the shell gave: Hydra unquotes them.

    ``["input=a, b (1).png"]`` -> ``["input='a, b (1).png'"]``; what is in quotes, ``null``, or means the same without
    quotes, stays as it is.
    """

    def plainly(argument: str) -> str:
        key, equals, value = argument.partition("=")
        if not equals or key not in keys or value in ("", "null") or value[0] in "'\"" or taken_as(argument) == value:
            return argument
        return f"{key}={quoted(value)}"

    return [plainly(argument) for argument in arguments]


def taken_as(argument: str) -> Any:
    """The value that Hydra reads from one argument; None where it reads none."""
    try:
        return parse([argument], None)[0].value()
    except OverrideParseException:
        return None


def command(config_name: str) -> Callable[[Callable[[], Any]], Callable[[], None]]:
    """Decorate a ``hydra.main`` function: errors become one sentence and exit status 1 (2: wrong usage).

    ``HYDRA_FULL_ERROR=1`` brings the traceback back.
    """

    def decorate(main: Callable[[], Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def run() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the sentence is made here
            try:
                main()
                sys.stdout.flush()  # here, where an error of it is still heard
            except Exception as error:
                if FULL_ERROR:
                    raise
                say(error, config_name)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(signal_status(signal.SIGINT))
            finally:
                os.environ["HYDRA_FULL_ERROR"] = str(int(FULL_ERROR))

        return run

    return decorate


def script(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorate what a script does with its config: :func:`command` and Hydra, which adds no line to an error of it."""

    def decorate(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def outspoken(config: DictConfig) -> None:
            try:
                main(config)
            except Exception as error:
                if FULL_ERROR:
                    raise
                say(error, config_name)

        configured = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)
        return command(config_name)(configured(outspoken))

    return decorate


def say(error: Exception, config_name: str = "train") -> NoReturn:
    """Print what went wrong and exit; where the reader of a pipe has left (``| head``), exit without a word."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    sys.stdout.flush()
    print(f"error: {explain(error, config_name)}", file=sys.stderr)
    sys.exit(2 if isinstance(error, OverrideParseException) else 1)


def explain(error: Exception, config_name: str = "train") -> str:
    """One sentence for the person at the terminal."""
    found = fault(error)
    if found is not None:
        return found.sentence
    if isinstance(error, UserError):
        return plain(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group}={name}: no such choice{did_you_mean(name, options)} (valid: {', '.join(options)})"
    if isinstance(error, ConfigCompositionException):
        found = re.search(r"Could not override '([^']+)'|key '([^']+)'", str(error))
        if found:
            return unknown_key(next(filter(None, found.groups())), error, config_name)
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0]
        return f"{error.override!r} is no KEY=VALUE: {reason}; put values with blanks or brackets in quotes"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())} (at {place}; HYDRA_FULL_ERROR=1 shows the way there)"
    )


def unknown_key(key: str, error: Exception, config_name: str) -> str:
    """Say which keys there are where ``key`` was looked for; or why a key that exists refused its value."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(config_name)
    keys = all_keys(config)
    if key in keys:
        return f"{key}: {' '.join(str(error.__cause__ or error).split())}"
    parent = key.rpartition(".")[0]
    siblings = [name for name in keys if name.rpartition(".")[0] == parent]
    listed = f" (valid: {', '.join(siblings)})" if siblings else ""
    return f"{key}: no such key{did_you_mean(key, keys)}{listed}"


def all_keys(config: DictConfig) -> list[str]:
    """Return every dotted key of a config, those of whole sections included."""
    values: Any = OmegaConf.to_container(config)
    parts = [key.split(".") for key in flatten(values)]
    return list(dict.fromkeys(".".join(words[:end]) for words in parts for end in range(1, len(words) + 1)))


def signal_status(signum: int) -> int:
    """The exit status a shell expects of a process that a signal stopped: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + signal.Signals(signum)
