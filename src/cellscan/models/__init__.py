"""Creation of networks by name, with new or published weights."""

from cellscan.models.registry import create as create
from cellscan.models.registry import list_backbones as list_backbones
