"""Detection of cells in fields: anchors, targets, losses and suppression, diameters, tiles, and composed fields."""
