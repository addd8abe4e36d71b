"""Annotation formats: one module for each format, and a table of all formats."""
