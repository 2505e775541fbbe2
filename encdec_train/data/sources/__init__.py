"""Data sets, embedded ones and those of a path; one file each."""
