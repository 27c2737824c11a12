"""Folders, secrets and spreadsheet cells: what untrusted data must not do, and what other people must not see."""

import hashlib
import re
from pathlib import Path

_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*:)\S+@")
_SECRET_VALUE = re.compile(r"((?:token|password|passwd|secret|api[_-]?key)[\w-]*[=\s:]\s*)[^\s&]+", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def make_private_folder(folder: Path) -> list[Path]:
    """Create `folder` and its missing parents, for their owner only; returns the new folders, the highest first.

    Raises OSError.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    for path in missing:
        path.mkdir(mode=0o700, exist_ok=True)
    return missing


def plain_name(name: str) -> str:
    """A safe name for a file or folder, made from the user's text (R56).

    Different texts give different names: a text with other characters than letters, digits, "_" and "-" gets a digest.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    if plain == name:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}".lstrip("-")


def without_secrets(text: str) -> str:
    """`text` with stars for passwords in URLs and for values after words like token (R38, R60)."""
    return _SECRET_VALUE.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


def holds_password(url: str) -> bool:
    """Whether the address of a database holds a password."""
    return without_password(url) != url


def without_password(url: str) -> str:
    """The address of a database without its password; the client then reads PGPASSWORD or .pgpass.

    The password of a client's key (sslpassword) is left out too. Any other text stays as it is.
    """
    if "://" not in url:
        return url
    plain = re.sub(r"^(\w+(?:\+\w+)?://[^\s:/@]*):\S*@", r"\1@", url)
    return re.sub(r"\?$", "", re.sub(r"(?<=[?&])(?:ssl)?password=[^&]*&?", "", plain).rstrip("&"))


def safe_cell(value: object) -> object:
    """`value` as a cell or heading that no spreadsheet runs as a formula (R59)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value


def original_cell(value: str) -> str:
    """The text of a cell that `safe_cell` made."""
    return value[1:] if value[:1] == "'" and value[1:2] in _FORMULA and len(value) > 1 else value
