"""Networks by name."""

from cellscan.models.registry import create as create
from cellscan.models.registry import names as names
