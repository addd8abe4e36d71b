"""SqueezeNet 1.1, the names of its Keras port: ``fire2`` to ``fire9``, two, two and four to a stage."""

from cellscan.models.keys import Keys


def _fire(groups: list[str]) -> str:
    stage, index, part = groups
    return f"fire{2 * int(stage) + int(index)}_{part}"


_SQUEEZENET = Keys(
    ((r"^stem\.conv", "conv1"), (r"^stage(\d)\.fires\.(\d)\.(\w+)", _fire), (r"^head", "conv10")),
    head=r"^conv10\.",
    layout="keras",
    bgr=True,
)
KEYS = {"squeezenet1_1": _SQUEEZENET}
