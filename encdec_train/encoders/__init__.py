"""Tokens to tokens: what a run leaves behind."""
