"""Weights under transformers' names, one file for each of its models. transformers itself is not needed here."""
