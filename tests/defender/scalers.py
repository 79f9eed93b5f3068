"""Every resize that there is, and any of them at any small size."""

from __future__ import annotations

from hypothesis import strategies as st

from defender.scaling import Scaler
from defender.scaling.audit import METHODS

ALL = [*METHODS, ("pillow", "box", False)]

sides = st.integers(1, 40)
sizes = st.tuples(sides, sides)
any_scaler = st.builds(
    lambda method, source, target: Scaler(*method, source, target),
    st.sampled_from(ALL),
    sizes,
    sizes,
)
