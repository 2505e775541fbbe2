"""Weights to and from timm's names."""
