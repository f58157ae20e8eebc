from dataclasses import replace

import study_section

from edge.stats import Estimate
from tfqrl.study.tables import Fewest, Findings, MeanError, Row

ROW = Row(
    *("dqn-A", "dqn", "float", "int8", None, None, 0.0, 8.0, 8.0, 8, (10, 11, 12), (50.0,) * 3, 50.0),
    *("float", None, 4096.0, None, None, None, 0, 0, None),
)


def error(value: float) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01)


def row(method: str, recipe: str, value: float, task: str = "dqn-A", **more: object) -> Row:
    algorithm = "distill" if method == "distilled" else task.split("-")[0]
    return replace(ROW, task=task, algorithm=algorithm, method=method, recipe=recipe, error=error(value), **more)


def qat(bits: int, value: float, task: str = "dqn-A") -> Row:
    return row(f"qat-{bits}", "int8", value, task, compression="qat", bits=bits)


FOUND = Findings(
    schema_version=1,
    title="QuaRL",
    command=("tfqrl", "study", "it.yaml"),
    baseline="float",
    control=None,
    returns={"dqn-A": error(50.0), "ppo-B": error(200.0)},
    rows=(
        row("float", "int8", 0.2, rejected=2, act_us=Estimate(8.0, 7.9, 8.1)),
        row("float", "int16x8", 0.015),
        qat(8, 0.001),
        qat(4, 0.02),
        qat(3, 0.5),
        row("distilled", "int8", 0.03, compression="qat", bits=3),
        row(
            *("neurons", "int8", 0.04),
            compression="prune",
            sparsity=0.7,
            model_bytes=1024.0,
            act_us=Estimate(4.0, 3.9, 4.1),
        ),
        row("float", "int8", 0.0, "ppo-B"),
        qat(4, 0.9, "ppo-B"),
    ),
    mean_errors=(MeanError("float", "int8", 2, error(0.1), Estimate(0.1, -0.1, 0.3), ()),),
    algorithm_errors={"dqn": (MeanError("float", "int8", 2, error(0.3), error(0.3), ()),)},
    measured_on=None,
    lowest_bits={"dqn-A": Fewest(4, certain=False), "ppo-B": None},
)


def test_what_8_bits_break_is_named_with_what_cures_it() -> None:
    text = "\n".join(study_section.study_section(FOUND))
    assert "the mean relative error over 2 tasks is +10.0% [+9.0%, +11.0%] for these policies, beyond the 2%" in text
    assert "by the spread of their errors, it is within [-10.0%, +30.0%]" in text
    # What costs least comes first, if it is accepted.
    assert "On dqn-A `int8` costs +20.0% [+19.0%, +21.0%]; float, `int16x8`, +1.5% [+0.5%, +2.5%]." in text
    rejected = replace(FOUND, rows=(FOUND.rows[0], replace(FOUND.rows[1], rejected=3), *FOUND.rows[2:]))
    assert "; qat-8, `int8`, +0.1% [-0.9%, +1.1%]." in "\n".join(study_section.study_section(rejected))
    only = replace(FOUND, rows=(FOUND.rows[0], replace(FOUND.rows[1], rejected=3)))
    assert "`int16x8`, +1.5% [+0.5%, +2.5%] (rejected for 3 of 3" in "\n".join(study_section.study_section(only))
    assert "| dqn-A | 3 | 50.0 | +20.0% [+19.0%, +21.0%] | +1.5% [+0.5%, +2.5%] | +0.1% [-0.9%, +1.1%] |" in text
    assert "| mean of dqn |  |  | +30.0% [+29.0%, +31.0%] (2 tasks) | - |  |" in text
    assert "ppo-B `int8`" not in text
    assert "`tfqrl convert` rejects 2 of these 6 policies" in text
    uncured = replace(FOUND, rows=(FOUND.rows[0],))
    assert "costs +20.0% [+19.0%, +21.0%], and nothing in the table cures it" in "\n".join(
        study_section.study_section(uncured)
    )


def test_the_fewest_bits_by_training_and_by_any_method() -> None:
    lines = study_section.study_section(FOUND)
    assert "| task | qat-4 | qat-3 | distilled | fewest | of any |" in lines
    assert any(line.startswith("| dqn-A |") and line.endswith("| (4) | 3 |") for line in lines)
    assert any(line.startswith("| ppo-B |") and line.endswith("| none | 8 |") for line in lines)


def test_pruned_policies_stand_beside_the_dense_one() -> None:
    lines = study_section.study_section(FOUND)
    assert "`neurons` (`int8`) keeps 97% of the return on none; not on dqn-A (+4.0%)." in lines
    assert lines[-1] == "| dqn-A | neurons | int8 | 70% | +4.0% [+3.0%, +5.0%] | 1.0 KiB / 4.0 KiB | 4.0 / 8.0 |"


def test_a_gain_is_within_what_was_wanted() -> None:
    better = replace(FOUND, mean_errors=(MeanError("float", "int8", 2, error(-0.05), error(-0.05), ("ppo-C",)),))
    text = "\n".join(study_section.study_section(better))
    assert "is -5.0% [-6.0%, -4.0%] for these policies, all of it within the 2%" in text
    assert "Left out are ppo-C, whose seeds return above and below 0." in text


def test_an_interval_on_both_sides_of_what_was_wanted_decides_nothing() -> None:
    unclear = replace(FOUND, mean_errors=(replace(FOUND.mean_errors[0], error=error(0.015)),))
    assert "neither within nor beyond" in "\n".join(study_section.study_section(unclear))


def test_the_control_has_a_column_and_may_be_the_cure() -> None:
    more = row("more", "int8", 0.01), row("more", "float32", -0.1)
    found = replace(FOUND, control="more", rows=(FOUND.rows[0], *FOUND.rows[2:], *more))
    lines = study_section.study_section(found)
    assert "| task | more | qat-4 | qat-3 | distilled | fewest | of any |" in lines
    assert any(line.startswith("| dqn-A | -10.0% [-11.0%, -9.0%] |") for line in lines)
    assert "; more, `int8`, +1.0%" in "\n".join(lines)


def test_what_is_missing_is_a_dash() -> None:
    alone = replace(FOUND.rows[6], recipe="float32", error=None, act_us=None)
    uncompared = replace(FOUND.rows[0], error=None)
    failed = replace(FOUND.rows[7], error=None, failure="no memory")
    lines = study_section.study_section(replace(FOUND, rows=(uncompared, failed, alone)))
    assert lines[-1] == "| dqn-A | neurons | float32 | 70% | - | - | - |"
    assert "On ppo-B `int8` cannot be made of all seeds, and nothing in the table cures it." in "\n".join(lines)
    assert "On dqn-A" not in "\n".join(lines)
