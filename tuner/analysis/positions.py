"""Values of a hyperparameter as positions on its sampling scale: 0 at the lower edge, 1 at the upper (D38)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.design.hyperparameters import Range


def unit_positions(values: pd.Series, domain: Range) -> NDArray[np.float64]:
    """Positions of `values`; missing ones are NaN."""
    numbers = values.to_numpy(dtype=np.float64)
    low, high = np.log([domain.low, domain.high]) if domain.log else (domain.low, domain.high)
    return np.asarray(((np.log(numbers) if domain.log else numbers) - low) / (high - low))
