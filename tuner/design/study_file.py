"""Study files: Python, one campaign each, because a torch model is Python."""

import importlib.util
import sys
from pathlib import Path

from tuner.design.campaign import Campaign
from tuner.errors import DeclarationError, InputError, TunerError
from tuner.sources.places import kind_of
from tuner.sources.running import Seen, loaded

# Packages of frameworks that train, by the extra that installs them.
_EXTRAS = {
    "lightning": "lightning",
    "pytorch_lightning": "lightning",
    "transformers": "transformers",
    "accelerate": "accelerate",
}
Declared = Campaign | str | Path  # a campaign, or the path of its study file
_loaded: dict[Path, Seen] = {}
_brought: dict[str, list[str]] = {}  # by a study's folder, the modules of own code that its study file imported


def declared_campaign(study: Declared) -> tuple[str, Campaign, Path | None]:
    """A campaign with its name and its study file; one that is passed as an object has a name, and no file.

    Raises InputError for an object without a name, DeclarationError as `load_campaign` does.
    """
    if not isinstance(study, Campaign):
        file = Path(study)
        return *load_campaign(file), file
    if not study.name:
        raise InputError("a campaign that is passed as an object needs a name: Campaign(..., name='digits')")
    return study.name, study, None


def load_campaign(path: Path) -> tuple[str, Campaign]:
    """Run a study file and return its campaign with its name (the file's, unless the campaign says otherwise).

    Raises DeclarationError for a missing file, one that does not run, and one without exactly one campaign.
    """
    if not path.is_file():
        raise DeclarationError(f"there is no study file {path}; a study file is Python and declares a Campaign")
    module_name = f"tuner_study_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(f"{path} is not a Python file; a study file ends in .py and declares a Campaign")
    module = importlib.util.module_from_spec(spec)
    _forget_others()
    sys.modules[module_name] = module
    folder, before = str(path.parent.resolve()), set(sys.modules)
    sys.path.insert(0, folder)  # so that a study can import a file beside it, in its methods too
    try:
        with loaded(Seen()) as _loaded[path.resolve()]:
            spec.loader.exec_module(module)
    except TunerError:
        raise
    except Exception as error:
        raise DeclarationError(
            f"{path} does not run: {type(error).__name__}: {error}{_way_out(path, error)}"
        ) from error
    finally:
        _brought[folder] = [name for name in sys.modules.keys() - before if _is_own(name)]
    campaigns = {id(value): value for value in vars(module).values() if isinstance(value, Campaign)}
    if len(campaigns) != 1:
        raise DeclarationError(
            f"{path} declares {len(campaigns)} campaigns and must declare exactly one: campaign = Campaign(...)"
        )
    campaign = next(iter(campaigns.values()))
    return campaign.name or path.stem, campaign


def seen_while_loaded(path: Path) -> Seen:
    """The code that ran when this process last loaded a study file; nothing for a file that it did not load."""
    return _loaded.get(path.resolve(), Seen())


def _forget_others() -> None:
    """Forget modules of earlier studies: another folder may have other modules of these names, and files change."""
    while _brought:
        folder, names = _brought.popitem()
        if folder in sys.path:
            sys.path.remove(folder)
        for name in names:
            sys.modules.pop(name, None)


def _way_out(path: Path, error: Exception) -> str:
    """Advice for a failed import of a package that contains the study file, or that lies in a folder above it."""
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "; a study file is run by itself: import what lies beside it by its own name, without the dot"
    top = (getattr(error, "name", None) or "").partition(".")[0]
    above = (each for each in path.resolve().parents if top and (each / top).is_dir())
    folder = next(above, None) if isinstance(error, ModuleNotFoundError) else None
    if folder:
        return f"; it lies in {folder}, which is not on the path: set PYTHONPATH={folder}"
    extra = _EXTRAS.get(top, "") if isinstance(error, ModuleNotFoundError) else ""
    return f": pip install 'tuner[{extra}]'" if extra else ""


def _is_own(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and kind_of(Path(file)) == "own"
