"""Where a launch came from: the command, the code's revision and whether it was changed since (B45)."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tuner.security import without_secrets

PACKAGES = ("tuner", "torch", "numpy", "scipy", "pandas", "sqlalchemy")


def revision(folder: Path) -> dict[str, Any]:
    """Git's commit of `folder`, and a digest of what is not committed; empty outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no") or ""
    if not changed.strip():
        return {"commit": commit.strip(), "uncommitted": False}
    difference = _git(folder, "diff", "HEAD") or ""
    digest = hashlib.sha256(difference.encode()).hexdigest()[:16]
    return {"commit": commit.strip(), "uncommitted": True, "difference": digest, "files": changed.split("\n")[:20]}


def environment() -> dict[str, Any]:
    """Versions and the machine, without any environment variable."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }


def command_line() -> str:
    """The command as it was given, without passwords in URLs."""
    told = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return without_secrets(told)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    asked = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
        [program, "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
    )
    return asked.stdout if asked.returncode == 0 else None
