"""JAX's persistent compilation cache: a second run of a study compiles nothing."""

import os
import sys
from pathlib import Path
from typing import Any

import jax

_ENABLED = "jax_enable_compilation_cache"
_FOLDER = "jax_compilation_cache_dir"
_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def folder() -> Path:
    """Where the platform keeps what can be made again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mtl-optax" / "jax"


def configure(use: bool) -> None:
    """Turns the cache on or off; to be called before anything is compiled."""
    jax.config.update(_ENABLED, use)
    if use and _read(_FOLDER) is None:  # else the user's choice
        jax.config.update(_FOLDER, str(folder()))
        # By default JAX keeps what took a second; a start compiles many small programs.
        jax.config.update(_LEAST_SECONDS, 0.0)


def in_use() -> bool:
    """Whether programs are looked up."""
    return bool(_read(_ENABLED)) and _read(_FOLDER) is not None


def _read(name: str) -> Any:
    return getattr(jax.config, name)  # by name: the type checker knows no attributes
