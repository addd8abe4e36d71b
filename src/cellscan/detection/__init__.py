"""What detection adds to a network: anchors, targets and losses, suppression. Pure and jitted with what calls it."""
