"""Study files: Python, because a torch model is Python. A file declares a campaign, or the stages of a training."""

import difflib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tuner.design.campaign import Campaign
from tuner.design.file_names import name_of
from tuner.design.stages import Stage, chain_to, split_stage, staged, with_sources
from tuner.errors import DeclarationError, InputError, TunerError
from tuner.shown import quoted, shown
from tuner.sources.places import kind_of
from tuner.sources.running import Seen, loaded

_log = logging.getLogger(__name__)
# Packages of frameworks that train, by the extra that installs them.
_EXTRAS = {
    "lightning": "lightning",
    "pytorch_lightning": "lightning",
    "transformers": "transformers",
    "accelerate": "accelerate",
}
Declared = Campaign | str | Path  # a campaign, or the path of its study file
_loaded: dict[Path, Seen] = {}
_said: set[str] = set()  # which campaign a file without a name stands for
_brought: dict[str, list[str]] = {}  # by a study's folder, the modules of own code that its study file imported


def declared_stage(study: Declared) -> Stage:
    """A campaign with its name and its study file; one that is passed as an object has a name, and no file.

    Without a name the last stage of a file is meant, and that is said where the file has several. Raises InputError
    for an object without a name, DeclarationError as `load_campaign` does.
    """
    if isinstance(study, Campaign):
        return declared_stages(study)[-1]
    file, name = split_stage(study)
    stages = load_stages(file)
    if not name and len(stages) > 1:
        _say_which(file, stages)
    return chosen_stage(stages, name, file)


def declared_stages(study: Declared) -> list[Stage]:
    """The stages that lead to a campaign, itself last; all of a file where none is named.

    Raises InputError for an object without a name, DeclarationError as `load_campaign` does.
    """
    if not isinstance(study, Campaign):
        file, name = split_stage(study)
        stages = load_stages(file)
        return chain_to(stages, chosen_stage(stages, name, file).name) if name else stages
    if not study.name:
        raise InputError("a campaign that is passed as an object needs a name: Campaign(..., name='digits')")
    return chain_to(staged(with_sources(study)), study.name)


def load_campaign(given: str | Path) -> tuple[str, Campaign]:
    """Run a study file and return its campaign with its name: the last stage, or the one that FILE:NAME names.

    Raises DeclarationError for a missing file, one that does not run, and one without such a campaign.
    """
    stage = declared_stage(given)
    return stage.name, stage.campaign


def _say_which(file: Path, stages: Sequence[Stage]) -> None:
    """Which of several campaigns a file without a name stands for; once in a process."""
    *others, last = (stage.name for stage in stages)
    words = (
        f"note: {file} has {len(stages)} campaigns; without a name its last stage is meant, {shown(last)}. The others: "
        f"{', '.join(shown(f'{file}:{one}') for one in others)}"
    )
    key = f"{file.resolve()} {words}"
    if key not in _said:
        _said.add(key)
        _log.warning("%s", words)


def chosen_stage(stages: Sequence[Stage], name: str, path: Path) -> Stage:
    """The stage with a name, that of the campaign or of its variable; the last one without a name.

    Raises DeclarationError.
    """
    if not name:
        return stages[-1]
    found = [one for one in stages if one.name == name] or [one for one in stages if one.variable == name]
    if not found:
        names = [one.name for one in stages]
        near = difflib.get_close_matches(name, [*names, *(one.variable for one in stages)], n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise DeclarationError(f"{path} declares no campaign {quoted(name)}; it has {', '.join(names)}{meant}")
    return found[0]


def load_stages(path: Path) -> list[Stage]:
    """Run a study file and return its campaigns, each after the one that it starts from.

    A campaign is called as it says. One that does not say is called like the file where it is the only one, or its
    variable is `campaign`; else like the file and its variable. Raises DeclarationError as `load_campaign` does.
    """
    module = _run(path)
    variables: dict[int, str] = {}
    for variable, value in vars(module).items():
        if isinstance(value, Campaign):
            variables.setdefault(id(value), variable)
    if not variables:
        raise DeclarationError(f"{path} declares 0 campaigns and must declare at least one: campaign = Campaign(...)")
    found: dict[str, Campaign] = {}
    for variable in variables.values():
        campaign = getattr(module, variable)
        name = campaign.name or name_of(path, variable, len(variables))
        if name in found:
            raise DeclarationError(
                f"{path} declares two campaigns called {quoted(name)}; each stage needs a name of its own: "
                "Campaign(..., name='...')"
            )
        found[name] = campaign
    named = dict(zip(found, variables.values(), strict=True))
    return [replace(stage, variable=named[stage.name], file=path) for stage in staged(found)]


def _run(path: Path) -> ModuleType:
    """The module of a study file, which was run."""
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
    return module


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
