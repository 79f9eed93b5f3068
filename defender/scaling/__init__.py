"""Image scaling as linear algebra: what a resize considers, and what can be hidden from it."""

from __future__ import annotations

from defender.scaling.audit import psnr_bound
from defender.scaling.considered import considered_mask
from defender.scaling.recovery import recover
from defender.scaling.scaler import Pipeline, Scaler

__all__ = ["Pipeline", "Scaler", "considered_mask", "psnr_bound", "recover"]
