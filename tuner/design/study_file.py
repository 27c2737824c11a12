"""Study files: Python, one campaign each, because a torch model is Python."""

import importlib.util
import sys
from pathlib import Path

from tuner.design.campaign import Campaign
from tuner.errors import DeclarationError, TunerError


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
    sys.modules[module_name] = module
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # so that a study can import a file beside it
    try:
        spec.loader.exec_module(module)
    except TunerError:
        raise
    except Exception as error:
        raise DeclarationError(f"{path} does not run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    campaigns = {id(value): value for value in vars(module).values() if isinstance(value, Campaign)}
    if len(campaigns) != 1:
        raise DeclarationError(
            f"{path} declares {len(campaigns)} campaigns and must declare exactly one: campaign = Campaign(...)"
        )
    campaign = next(iter(campaigns.values()))
    return campaign.name or path.stem, campaign
