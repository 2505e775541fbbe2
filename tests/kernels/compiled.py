"""Kernels of one file, compiled for devices that are not here, in a process where nothing is interpreted."""

import json
import os
import subprocess
import sys

CODE = """
import dataclasses, importlib, json, sys
from encdec_train.kernels.crosscompile import ARCHITECTURES, build
module = importlib.import_module(sys.argv[1])
found = [dataclasses.asdict(build(job, arch)) | {"fits": build(job, arch).fits}
         for arch in ARCHITECTURES for job in module.jobs(arch)]
print(json.dumps(found))
"""


def compiled(module: str) -> list[dict]:
    """What every shipped choice of every kernel uses of every architecture."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = [sys.executable, "-c", CODE, module]
    said = subprocess.run(run, check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(said)
