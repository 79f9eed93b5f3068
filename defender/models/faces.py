"""Face encoders whose public checkpoints load as they are, in one place."""

from defender.models.face_encoder import FaceEncoder, similarity
from defender.models.inception_resnet_v1 import InceptionResnetV1
from defender.models.iresnet import IResNet, iresnet18, iresnet34, iresnet50, iresnet100
from defender.models.mobilefacenet import MobileFaceNet

__all__ = [
    "FaceEncoder",
    "IResNet",
    "InceptionResnetV1",
    "MobileFaceNet",
    "iresnet18",
    "iresnet34",
    "iresnet50",
    "iresnet100",
    "similarity",
]
