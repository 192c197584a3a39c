"""Pieces of self-contained HTML pages, for reports on data and on evaluations."""
