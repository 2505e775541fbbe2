"""Operations with a Triton kernel beside a pure-torch twin of the same signature.

`<op>.py` has the public function, which asks `backend.choose` for a path, the twin, and the operations of torch.
`<op>_triton.py` has the kernels. It imports Triton and nothing of torch, and is imported where a kernel is launched;
its `jobs(arch)` lists every kernel with every choice of tiles that is shipped, to be compiled without a device.
`configs/<op>.json` has tile sizes by (architecture, dtype, size, length); scripts/tune_kernels.py chooses them, never
a training run.
"""
