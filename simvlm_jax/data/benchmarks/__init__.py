"""Readers of the official files of benchmarks: paths in, a row for every example out."""
