"""What attacks have in common that stay in a ball whose norm may be chosen."""

from __future__ import annotations

from defender.types import Budget, check_parameters


class NormBall:
    """A base of attacks with the parameters ``epsilon`` and ``norm``, ``"linf"`` or ``"l2"``."""

    epsilon: float
    norm: str

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(f"epsilon: expected [0, 1] for norm 'linf', got {self.epsilon!r}")

    @property
    def budget(self) -> Budget:
        """The norm."""
        return "l2" if self.norm == "l2" else "linf"
