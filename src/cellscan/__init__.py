"""Blood-cell images in, honest classifiers out."""
