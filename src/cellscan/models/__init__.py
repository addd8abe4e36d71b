"""Networks by name, and their published weights."""

from cellscan.models.registry import create as create
from cellscan.models.registry import list_backbones as list_backbones
