"""ResNet, timm's names."""

from cellscan.models.keys import Keys
from cellscan.models.resnet import PLANS

_RESNET = Keys(
    (
        (r"^stem\.conv", "conv1"),
        (r"^stem\.norm", "bn1"),
        (r"^stage(\d)\.blocks\.", r"layer\1."),
        (r"\.conv(\d)\.conv", r".conv\1"),
        (r"\.conv(\d)\.norm", r".bn\1"),
        (r"\.shortcut\.conv", ".downsample.0"),
        (r"\.shortcut\.norm", ".downsample.1"),
        (r"^head", "fc"),
    ),
    head=r"^fc\.",
)
KEYS = dict.fromkeys(PLANS, _RESNET)
