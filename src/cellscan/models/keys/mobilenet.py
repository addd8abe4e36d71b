"""MobileNet and EfficientNet-Lite, timm's names; a block without widening counts its parts from one."""

from cellscan.models.keys import Keys
from cellscan.models.mobilenet import PLANS

_WIDE = {"widen.conv": "conv_pw", "widen.norm": "bn1", "filter.conv": "conv_dw", "filter.norm": "bn2",
         "narrow.conv": "conv_pwl", "narrow.norm": "bn3"}  # fmt: skip
_PLAIN = {"filter.conv": "conv_dw", "filter.norm": "bn1", "narrow.conv": "conv_pw", "narrow.norm": "bn2"}


def _block(groups: list[str]) -> str:
    stage, index, part = groups
    names = _PLAIN if stage == "1" else _WIDE
    return f"blocks.{int(stage) - 1}.{index}.{names[part]}"


_MOBILENET = Keys(
    (
        (r"^stem\.conv", "conv_stem"),
        (r"^stem\.norm", "bn1"),
        (r"^stage(\d)\.layers\.(\d)\.(\w+\.\w+)", _block),
        (r"^last\.conv", "conv_head"),
        (r"^last\.norm", "bn2"),
        (r"^head", "classifier"),
    ),
    head=r"^classifier\.",
)
KEYS = dict.fromkeys(PLANS, _MOBILENET)
