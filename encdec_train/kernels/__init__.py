"""Operations with a Triton kernel beside a pure-torch twin of the same signature.

<op>.py          the public function, which chooses a path (`backend.choose`), the twin, and the torch operations
<op>_triton.py   the kernels; imports Triton and nothing of torch, and is itself imported where a kernel is launched.
                 Its `jobs(arch)` lists every kernel with every shipped choice of tiles, to be compiled without a device
configs/<op>.json  tile sizes by (architecture, dtype, size, length), chosen by scripts/tune_kernels.py, never in training
"""
