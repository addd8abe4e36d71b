"""Cells in: data sets, patients, splits, pixels."""
