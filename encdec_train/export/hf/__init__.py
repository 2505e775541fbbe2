"""Weights to and from transformers' names."""
