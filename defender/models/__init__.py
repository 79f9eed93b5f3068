"""Classifiers that image-defender trains and ships, and the wrapper that normalises images."""

from defender.models.classifiers import Normalised, PooledResNet, cifar_resnet, shapes_cnn
from defender.models.xray import XrayNet, xray_cnn

__all__ = ["Normalised", "PooledResNet", "XrayNet", "cifar_resnet", "shapes_cnn", "xray_cnn"]
