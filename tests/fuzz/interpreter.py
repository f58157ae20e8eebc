"""Count how often the TFLite interpreter crashes on damaged models whose SHA-256 is right.

    PYTHONPATH=. python tests/fuzz/interpreter.py

To see whether a new version of the interpreter does better. Not part of `make fuzz`: it is not our parser, and it does
crash. Prints how loading ended, with how often; a negative number is a signal.
"""

import dataclasses
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from edge import artifact
from edge.errors import ArtifactError
from edge.policy import Policy

DATA = Path(__file__).parents[1] / "data"
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MODELS = 10_000
HANGS_S = 60


def damaged(seed: int) -> artifact.Artifact:
    """A policy with up to four bits, bytes or words of its model changed, and papers that fit it."""
    rng = random.Random(seed)
    source = artifact.read(rng.choice(sorted(DATA.glob("*.tflite"))))
    model = bytearray(source.flatbuffer)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(8, len(model))
        kind = rng.randrange(3)
        if kind == 0:
            model[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            model[place] = rng.choice((0, 1, 127, 128, 255))
        else:
            model[place & ~3 : (place & ~3) + 4] = rng.choice(EDGES).to_bytes(4, "little")
    manifest = dataclasses.replace(
        source.manifest, flatbuffer_sha256=artifact.sha256(bytes(model)), flatbuffer_bytes=len(model)
    )
    return artifact.Artifact(manifest, bytes(model), source.golden)


def load(begin: int, end: int) -> None:
    """Load damaged policies in this process, and say of each what came of it."""
    for seed in range(begin, end):
        print(seed, flush=True)
        try:
            Policy.from_artifact(damaged(seed))
            print("loads")
        except ArtifactError as error:
            print(type(error).__name__)


def main() -> None:
    """Load them in a process that is started again after each crash."""
    results: Counter[str] = Counter()
    begin = 0
    while begin < MODELS:
        words = [sys.executable, __file__, str(begin), str(min(begin + 500, MODELS))]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=HANGS_S)
            out, ended = done.stdout, f"ended with {done.returncode}"
        except subprocess.TimeoutExpired as error:
            out, ended = (error.stdout or b"").decode(), "hangs"
        lines = out.split()
        if not lines:
            sys.exit(f"Nothing was loaded: it {ended}.")
        results.update(line for line in lines if not line.isdigit())
        begin = 1 + max(int(line) for line in lines if line.isdigit())
        if ended != "ended with 0":
            results[ended] += 1
            print(f"model {begin - 1}: {ended}", flush=True)
    print(dict(results))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        load(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
