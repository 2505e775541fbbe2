"""One Triton operation per file beside its pure-torch twin."""
