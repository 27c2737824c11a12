"""How trials are trained, as far as it is said without torch: worker processes start before it is imported."""

from typing import Literal

Profile = Literal["exact", "fast"]
COMMIT_SECONDS = 5.0  # between durable commits; what was trained since is replayed exactly after a crash
