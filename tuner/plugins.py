"""Plugins: installed packages that add optimizers, schedules, questions, plots, commands or sections of the report.

A plugin's package names a module in the entry point group `tuner.plugins`. That module calls `tuner.register`. It
should import quickly: every command loads it, `tuner --help` too.
"""

import os
import sys
from collections.abc import Sequence
from threading import RLock
from typing import Any

from tuner.errors import InputError

GROUP = "tuner.plugins"
_LOCK = RLock()
_loaded: set[str] = set()


def load_plugins() -> None:
    """Import the module of every installed plugin, once in a process.

    Raises InputError for a plugin that cannot be imported, or that registers what cannot be.
    """
    if GROUP in _loaded:
        return
    if not is_any_installed(sys.path):
        _loaded.add(GROUP)
        return
    from importlib.metadata import entry_points  # noqa: PLC0415 - it takes half as long as the import of `tuner`

    with _LOCK:
        if GROUP in _loaded:
            return
        _loaded.add(GROUP)  # first: a plugin may look at a registry while it is imported
        try:
            for plugin in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
                _load(plugin)
        except BaseException:
            _loaded.discard(GROUP)
            raise


def is_any_installed(folders: Sequence[str]) -> bool:
    """Whether a package in one of these folders names a plugin; True where that cannot be read off its files.

    Most have none, and then `importlib.metadata` is not imported: it takes half as long as all of `tuner --help`.
    """
    for folder in folders:
        if not os.path.isdir(folder or "."):
            if os.path.exists(folder):  # a zip file
                return True
            continue
        with os.scandir(folder or ".") as entries:
            places = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info", ".egg"))]
        if any(map(_names_plugins, places)):
            return True
    return False


def _names_plugins(place: str) -> bool:
    if place.endswith(".egg"):
        return True
    try:
        with open(os.path.join(place, "entry_points.txt"), encoding="utf-8") as file:
            return GROUP in file.read()
    except OSError:  # it has none
        return False


def _load(plugin: Any) -> None:
    package = f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else "an unknown package"
    try:
        plugin.load()
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"the plugin {plugin.name!r} ({plugin.value}, of {package}) cannot be loaded: {reason}; "
            "correct its package, or uninstall it"
        ) from error
