"""`tfqrl distill`."""

from __future__ import annotations

from edge.errors import UsageError
from tfqrl import train_command
from tfqrl.options import import_tensorflow, value_of

TEXT = """Train a policy to do what another one does, in minutes: DAgger.

The student acts, the teacher says what it would have done there, and the student learns that. TEACHER is a run that was
trained here or imported; the student may have other widths, and is compressed while it learns with --compress. What it
gives is a run like any other.

Example: tfqrl distill runs/hopper --hidden 64 64 --out runs/hopper-small

Example: tfqrl distill runs/hopper --compress qat --weight-bits 3 --activation-bits 3 --out runs/hopper-3

Example: tfqrl distill --out runs/hopper-3 --resume"""

PROGRAM = "tfqrl distill"


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    named = bool(words) and not words[0].startswith("-")
    if named and "--resume" in words:
        raise UsageError("--resume goes on with the run's own teacher: tfqrl distill --out RUN --resume.")
    if {"-h", "--help", "--resume"} & set(words):
        import_tensorflow()
        return train_command.train("distill", words[named:], PROGRAM, TEXT)
    if not named:
        raise UsageError("Name a teacher: tfqrl distill TEACHER --out RUN.")
    import_tensorflow()
    from tfqrl import candidates
    from tfqrl.runs import Run

    teacher, words = words[0], words[1:]
    run = Run.open(teacher)
    if value_of(words, "--env") is None:
        words = ["--env", candidates.common_env([candidates.load(run.path)], None), *words]
        if run.config.get("env_module") is not None and value_of(words, "--env-module") is None:
            words = ["--env-module", run.config["env_module"], *words]
    return train_command.train("distill", ["--teacher", teacher, *words], PROGRAM, TEXT)
