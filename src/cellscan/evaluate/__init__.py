"""Evaluation: figures of cells with intervals over patients."""
