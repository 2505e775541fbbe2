"""Writing sequences of ids with parts that score the next one."""
