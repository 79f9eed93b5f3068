"""Explanations of what a classifier sees: heat maps by Grad-CAM, for reports and detectors."""

from defender.explain.gradcam import gradcam, gradcams
from defender.explain.layers import find_layer, seen_region
from defender.explain.overlay import overlay

__all__ = ["find_layer", "gradcam", "gradcams", "overlay", "seen_region"]
