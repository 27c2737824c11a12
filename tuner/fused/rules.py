"""The table of all rules: what is done with a torch function, by its name."""

from typing import Any

from tuner.fused import (
    rules_compute,
    rules_elementwise,
    rules_loss,
    rules_matmul,
    rules_python,
    rules_shape,
)

TABLE: dict[str, Any] = {
    **rules_elementwise.RULES,
    **rules_shape.RULES,
    **rules_compute.RULES,
    **rules_matmul.RULES,
    **rules_loss.RULES,
    **rules_python.RULES,
}
