"""Evaluation: metrics of cells with intervals over patients."""
