"""Weights for others, and weights of others."""
