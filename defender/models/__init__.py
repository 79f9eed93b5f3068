"""Classifiers that image-defender trains and ships, and the wrapper that normalises images."""

from defender.models.classifiers import Normalised, PooledResNet, cifar_resnet, shapes_cnn

__all__ = ["Normalised", "PooledResNet", "cifar_resnet", "shapes_cnn"]
