"""Scorers: predictions and references in, a dictionary of numbers out."""
