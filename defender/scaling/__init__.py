"""Image scaling as linear algebra: what a resize considers, and what can be hidden from it."""

from __future__ import annotations

from defender.scaling.scaler import Pipeline, Scaler

__all__ = ["Pipeline", "Scaler"]
