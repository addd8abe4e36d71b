"""VGG, timm's names: ``features.N``, counted over convolutions, activations and maxima."""

from cellscan.models.keys import Keys
from cellscan.models.vgg import DEPTHS


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


KEYS = {name: _keys(depths) for name, depths in DEPTHS.items()}
