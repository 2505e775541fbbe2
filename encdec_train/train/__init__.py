"""Runs: stages, the one Lightning module, checkpoints, the run directory."""
