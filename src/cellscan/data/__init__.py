"""Data sets of cells and fields: images, labels, patients, splits and pixels."""
