"""Fuzz the reader of policy files guided by coverage: `pip install atheris`, then

    PYTHONPATH=. python tests/fuzz/guided.py -max_total_time=600 -max_len=20000 CORPUS

CORPUS is a folder to which it adds the inputs that reached something new; begin with a copy of `tests/data`. Not part
of `make fuzz`, because atheris has no wheels for every Python that tfqrl runs on. Other options are libFuzzer's.
"""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["edge.artifact", "edge.records", "zipfile", "json"]):
    from edge import artifact

from edge.errors import ArtifactError


def read(data: bytes) -> None:
    with contextlib.suppress(ArtifactError):
        artifact.from_bytes(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
