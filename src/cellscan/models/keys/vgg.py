"""VGG, timm's names: ``features.N``, counted over convolutions, activations and maxima."""

from cellscan.models.keys import Keys
from cellscan.models.vgg import VGG16 as _VGG16
from cellscan.models.vgg import VGG19 as _VGG19


def _keys(depths: tuple[int, ...]) -> Keys:
    def number(groups: list[str]) -> str:
        stage, index = map(int, groups)
        return f"features.{sum(2 * depth + 1 for depth in depths[: stage - 1]) + 2 * index}"

    return Keys(
        (
            (r"stage(\d)\.convs\.(\d+)", number),
            (r"^top", "pre_logits"),
            (r"^head", "head.fc"),
        ),
        head=r"^(pre_logits|head)\.",
    )


VGG16 = _keys(_VGG16)
VGG19 = _keys(_VGG19)
