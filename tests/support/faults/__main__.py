"""`python -m faults` (with tests/support on the path) draws the tables of docs/safety.md again."""

from __future__ import annotations

from pathlib import Path

from faults import FAULTS, GROUPS, Fault

PAGE = Path(__file__).parents[3] / "docs" / "safety.md"
BEGIN, END = "<!-- faults: drawn by python -m faults -->\n", "<!-- end of faults -->\n"


def drawn(page: str) -> str:
    """The page with its tables as the campaign has them."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "\n".join(map(_table, GROUPS)) + "\n" + END + after


def _table(group: str) -> str:
    rows = [_row(fault) for fault in FAULTS if fault.group == group]
    head = [f"### {group.capitalize()}", "", "| fault | the loop | cause | exit code |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _row(fault: Fault) -> str:
    causes = [fault.cause] if fault.cause else list(fault.counts or ())
    if fault.raises is not None:
        does, exit_code = f"failsafe action, then raises {fault.raises.__name__}", "by the exception"
    elif fault.may_last and fault.cause is not None:
        does, exit_code = "failsafe action; stops if it lasts", f"{fault.cause.exit_code}"
    elif fault.stopped_by is not None:
        does, exit_code = "failsafe action; stops", str(fault.exit_code)
    elif causes:
        does, exit_code = "failsafe action", "0"
    else:
        does, exit_code = "goes on", "0"
    if fault.says and not causes and fault.raises is None:
        does += f"; reports: {fault.says}"
    return f"| {fault.name} | {does} | {', '.join(cause.text for cause in causes)} | {exit_code} |"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
