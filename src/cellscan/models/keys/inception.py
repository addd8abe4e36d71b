"""Inception v3, timm's names, which are those of the TensorFlow graph."""

from cellscan.models.keys import Keys

_FIRST = {
    ("stem", 0): "Conv2d_1a_3x3",
    ("stem", 1): "Conv2d_2a_3x3",
    ("stem", 2): "Conv2d_2b_3x3",
    ("stage1", 1): "Conv2d_3b_1x1",
    ("stage1", 2): "Conv2d_4a_3x3",
}
_ROW = {("stage2", i): f"Mixed_5{'_bcd'[i]}" for i in (1, 2, 3)}  # behind a maximum
_ROW |= {("stage3", i): f"Mixed_6{'abcde'[i]}" for i in range(5)}
_ROW |= {("stage4", i): f"Mixed_7{'abc'[i]}" for i in range(3)}
_ALONE = ("b1x1", "pool")
_SPLIT = {("b3x3", "1"), ("b3x3dbl", "2")}  # steps of the last blocks that end in two convolutions


def _first(groups: list[str]) -> str:
    return _FIRST[groups[0], int(groups[1])]


def _mixed(groups: list[str]) -> str:
    stage, index, branch, step, side = groups
    block = _ROW[stage, int(index)]
    name = "branch_pool" if branch == "pool" else f"branch{branch[1:]}"
    if branch in _ALONE or (block, branch) == ("Mixed_6a", "b3x3"):
        return f"{block}.{name}"
    split = "ab"[int(side)] if block in ("Mixed_7b", "Mixed_7c") and (branch, step) in _SPLIT else ""
    return f"{block}.{name}_{int(step) + 1}{split}"


_INCEPTION_V3 = Keys(
    (
        (r"^(stem|stage1)\.layers\.(\d)", _first),
        (r"^(stage\d)\.layers\.(\d)\.(\w+)\.(\d)\.(\d)", _mixed),
        (r"\.norm$", ".bn"),
        (r"^head", "fc"),
    ),
    head=r"^fc\.",
    ignore=r"num_batches_tracked$|^AuxLogits\.",
)
KEYS = {"inception_v3": _INCEPTION_V3}
