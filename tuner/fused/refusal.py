"""An error on the way to a group is one of three: a reason to train one by one, the machine's, or no memory."""

from tuner.errors import NotFusible
from tuner.training.endings import ending, is_out_of_memory


def refusal(error: Exception, when: str) -> NotFusible:
    """What an error of the user's code is for a group: trained alone, each trial shows it, or does not have it.

    Raises the error again when it is the machine's, or when fewer trials may have memory enough.
    """
    if isinstance(error, NotFusible):
        return error
    if is_out_of_memory(error):
        raise error
    ending(error)
    return NotFusible(f"{type(error).__name__} {when}: {error}")
