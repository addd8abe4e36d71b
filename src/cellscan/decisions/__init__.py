"""How probabilities become labels, sets of labels and warnings: each record with what is done by it."""
