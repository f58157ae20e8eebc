import json
from importlib import resources

import pytest
import yaml

from edge.records import from_plain
from tfqrl import agents, cli, zoo

ENTRIES = [(algorithm, env) for algorithm in agents.TRAINABLE for env in zoo.environments(algorithm)]


def test_every_algorithm_that_can_be_trained_has_tuned_configurations() -> None:
    assert set(agents.TRAINABLE) <= set(zoo.algorithms())


@pytest.mark.parametrize(("algorithm", "env"), ENTRIES)
def test_what_is_tuned_is_a_configuration_and_differs_from_the_defaults(algorithm: str, env: str) -> None:
    kind = agents.get(algorithm).config
    tuned, default = zoo.tuned(algorithm, env), kind(env=env)
    config = from_plain(kind, {"env": env, **tuned}, f"{algorithm}.yaml")
    assert [key for key in tuned if getattr(config, key) == getattr(default, key)] == []
    assert not {"env", "seed"} & set(tuned)


@pytest.mark.parametrize("algorithm", zoo.algorithms())
def test_no_file_says_a_key_twice(algorithm: str) -> None:
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value]
            assert len(set(keys)) == len(keys), keys
            return super().construct_mapping(node, deep)

    text = (resources.files("tfqrl.zoo") / f"{algorithm}.yaml").read_text()
    assert yaml.load(text, Strict) == zoo.environments(algorithm)


def test_what_is_not_tuned_is_empty_and_what_is_given_out_is_a_copy() -> None:
    assert zoo.tuned("ppo", "Acrobot-v1") == {}
    zoo.tuned("ppo", "HalfCheetah-v5").clear()
    assert zoo.tuned("ppo", "HalfCheetah-v5")["num_envs"] == 64


def test_values_are_shown_by_the_names_of_their_options() -> None:
    values = {"num_envs": 8, "hidden": [256, 256], "learning_rate": 0.00001, "v_min": -814.0, "double": True}
    assert zoo.text(values) == "num-envs 8, hidden 256 256, learning-rate 1e-05, v-min -814, double"
    assert zoo.text({"normalize_reward": False}) == "no-normalize-reward"
    assert zoo.text({}) == "nothing: they suit it"


def test_the_command_shows_all_one_algorithm_or_one_environment(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert cli.main(["zoo"]) == 0
    everything = capsys.readouterr().out
    assert all(len(line) <= 120 for line in everything.splitlines())
    assert "ppo        HalfCheetah-v5             num-envs 64, rollout-steps 32, initial-log-std -0.5\n" in everything
    assert cli.main(["zoo", "ppo"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:] if line.startswith("ppo")] == list(
        zoo.environments("ppo")
    )
    assert cli.main(["zoo", "--env", "HalfCheetah-v5", "--json", str(tmp_path / "zoo.json")]) == 0
    entries = json.loads((tmp_path / "zoo.json").read_text())
    assert {"algorithm": "ppo", "env": "HalfCheetah-v5", "config": zoo.tuned("ppo", "HalfCheetah-v5")} in entries
    assert {entry["env"] for entry in entries} == {"HalfCheetah-v5"}
    assert len(capsys.readouterr().out.splitlines()) >= 1 + len(entries)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["zoo", "pp"], "Unknown algorithm 'pp'. Did you mean 'ppo'?"),
        (["zoo", "--env", "HalfCheeta-v5"], "Unknown environment in the zoo 'HalfCheeta-v5'. Did you mean"),
        (["zoo", "ppo", "--env", "Pendulum-v1"], "Unknown environment in the zoo for ppo 'Pendulum-v1'."),
        (["zoo", "--jsn", "x"], "Unknown option '--jsn'. Did you mean '--json'?"),
        (["zoo", "--json", f"{__file__}/zoo.json"], "Cannot write"),
    ],
)  # fmt: skip
def test_what_the_zoo_has_not_is_answered_in_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"tfqrl: {message}")
    assert captured.err.count("\n") == 1


def test_what_stands_at_a_place_is_not_offered_as_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--algorithm", "--algorithms"):
        assert cli.main(["zoo", option, "ppo"]) == 2
        assert (
            capsys.readouterr().err
            == f"tfqrl: Unknown option '{option}'. Known: --env, --help, --json, --no-env, --no-json.\n"
        )
