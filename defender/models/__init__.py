"""Classifiers that image-defender trains and ships, and the wrappers around models."""

from defender.models.classifiers import Normalised, PooledResNet, cifar_resnet, shapes_cnn
from defender.models.defended import DefendedModel
from defender.models.xray import XrayNet, xray_cnn

__all__ = [
    "DefendedModel",
    "Normalised",
    "PooledResNet",
    "XrayNet",
    "cifar_resnet",
    "shapes_cnn",
    "xray_cnn",
]
