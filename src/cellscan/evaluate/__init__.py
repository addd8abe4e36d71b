"""Evaluation of classifiers and detectors: metrics, with intervals over patients or fields."""
