import base64
import contextlib
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DATA

from converters import convert
from converters.export import DeployedPolicy
from converters.sources import ForeignPolicy, ImportPolicyError, pickles, pth, sb3, sb3_spec

MODELS = DATA / "sb3"
NAMES = sorted(path.stem for path in MODELS.glob("*.zip"))
# (36, 44, 2) frames, or 3 numbers: what tests/data/sb3/make.py trains on, and asks its models about.
RNG = np.random.RandomState


def load(name: str) -> ForeignPolicy:
    statistics = MODELS / f"{name}.pkl"
    return sb3.load(MODELS / f"{name}.zip", statistics if statistics.exists() else None)


def observations(policy: ForeignPolicy) -> np.ndarray:
    if policy.spec.observation.dtype == "float32":
        return RNG(0).normal(0.0, 1.0, (1000, 3)).astype(np.float32)
    return RNG(0).randint(0, 256, (1000, 3, 4, 2)).astype(np.uint8).repeat(12, axis=1).repeat(11, axis=2)


@pytest.mark.parametrize("name", NAMES)
def test_it_does_what_stable_baselines3_predicts(name: str) -> None:
    policy, expected = load(name), np.load(MODELS / f"{name}.npy")
    actions = DeployedPolicy(policy.network, policy.spec).act(observations(policy))
    assert actions.shape == expected.shape
    if policy.spec.action.discrete:
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(actions, expected)
        return
    bounds = zip(policy.spec.action.low, policy.spec.action.high)
    span = np.array([1.0 if low is None or high is None else max(1.0, high - low) for low, high in bounds])
    assert (expected.std(axis=0) > 0.01).any()
    assert (np.abs(actions - expected) / span).max() < 1e-5


def test_the_models_are_of_every_kind_that_is_said_to_be_supported() -> None:
    kinds = {(load(name).origin["algorithm"], "cnn" in name) for name in NAMES}
    assert kinds >= {(algorithm, False) for algorithm in ("PPO", "A2C", "DQN", "DDPG", "TD3", "SAC")}
    assert kinds >= {(algorithm, True) for algorithm in ("PPO", "A2C", "DQN", "SAC")}


def test_what_it_was_is_told() -> None:
    policy = load("ppo-normalized")
    assert policy.origin["format"] == "sb3"
    assert policy.origin["timesteps"] == 1024
    assert policy.origin["vecnormalize"] is True
    assert policy.spec.action.low == (-2.0, 0.5)
    assert policy.spec.action.high == (1.0, 7.0)
    assert policy.spec.normalizer is not None
    assert policy.spec.normalizer.clip == 1.5
    assert load("ppo-unbounded").spec.action.low == (None, None)
    frames = load("dqn-cnn").spec.observation
    assert (frames.shape, frames.low, frames.dtype) == ((36, 44, 2), (), "uint8")


def test_an_imported_policy_converts() -> None:
    policy = load("sac")
    comparison = convert(policy.network, policy.spec, "int8", observations(policy)).comparison
    assert comparison.mean_action_error is not None
    assert 0 < comparison.mean_action_error < 0.3


def rewritten(source: str, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A model with its members changed."""
    with zipfile.ZipFile(MODELS / f"{source}.zip") as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def with_data(source: str, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    def change_member(members: dict[str, bytes]) -> None:
        data = json.loads(members["data"])
        change(data)
        members["data"] = json.dumps(data).encode()

    return rewritten(source, path, change_member)


def pickled(instance: Any) -> dict[str, str]:
    return {":type:": "x", ":serialized:": base64.b64encode(instance).decode()}


def runs(path: Path) -> bytes:
    """A pickle that makes a file when it is unpickled by pickle."""

    class Evil:
        def __reduce__(self) -> Any:
            return open, (str(path), "w")

    return pickle.dumps(Evil())


def test_the_pickle_that_these_tests_try_would_run_code(tmp_path: Path) -> None:
    pickle.loads(runs(tmp_path / "made")).close()
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("field", ["policy_class", "observation_space", "action_space"])
def test_pickled_code_in_a_model_is_refused_and_not_run(field: str, tmp_path: Path) -> None:
    evil = pickled(runs(tmp_path / "made"))
    path = with_data("ppo", tmp_path / "evil.zip", lambda data: data.update({field: evil}))
    with pytest.raises(
        ImportPolicyError, match=r"has in it the name '\w+\.open'.* nothing in it was executed"
    ) as error:
        sb3.load(path)
    assert field in str(error.value)
    assert not (tmp_path / "made").exists()


def test_pickled_code_that_is_not_needed_is_not_even_looked_at(tmp_path: Path) -> None:
    evil = pickled(runs(tmp_path / "made"))

    def change(data: dict[str, Any]) -> None:
        data.update({"lr_schedule": evil, "_last_obs": evil})
        data["policy_kwargs"] = {**data["policy_kwargs"], **evil}

    sb3.load(with_data("ppo", tmp_path / "evil.zip", change))
    assert not (tmp_path / "made").exists()


def test_pickled_code_among_tensors_is_refused_and_not_run(tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr("archive/data.pkl", runs(tmp_path / "made"))
        members["policy.pth"] = packed.getvalue()

    with pytest.raises(ImportPolicyError, match=r"policy\.pth of .* nothing in it was executed"):
        sb3.load(rewritten("ppo", tmp_path / "evil.zip", change))
    assert not (tmp_path / "made").exists()


def test_pickled_code_in_statistics_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(runs(tmp_path / "made"))
    with pytest.raises(ImportPolicyError, match=r"evil\.pkl has in it the name"):
        sb3.load(MODELS / "ppo.zip", tmp_path / "evil.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", "the name 'posix.system'"),
        (b"cnumpy.f2py.diagnose\nrun\n)R.", None),  # known packages are stood in for, never imported
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "the name 'builtins.eval'"),
        (b"\x80\x02(lp0\n.", "KeyError"),  # an opcode of the first version
        (b"\x80\x04]r\xff\xff\xff\x7f.", None),  # a memo of 2^31 places is not reserved
        (b"\x80\x05\x96" + struct.pack("<Q", 2**62), "damaged"),
        (b"\x80\x05\x8e" + struct.pack("<Q", 2**40), "damaged"),
        (b"\x80\x04" + b"(" * 1000 + b"t" * 999 + b"}\x94K\x01K\x01s\x94s.", "keys other"),
        (b"\x80\x04}K\x01\x85\x86", "damaged"),
        (b"\x80\x04}K\x01\x85K\x01s.", "keys other than text and numbers"),
        (b"\x80\x04\x8f.", "KeyError"),  # a set
        (b"\x80\x04K\x01}b.", "a state for something that has none"),
        (b"\x80\x04K\x01Q.", "a reference to something outside"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.", "O8, which is not of plain numbers"),
        (b"cnumpy._core.numeric\n_frombuffer\n(C\x04abcdcnumpy\ndtype\nX\2\0\0\0f4\x85R"
         b"]\x85X\1\0\0\0CtR.", "a shape that is none"),
        (b"cnumpy._core.numeric\n_frombuffer\n(C\x04abcdcnumpy\ndtype\nX\2\0\0\0f4\x85R"
         b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftX\1\0\0\0CtR.", "a shape that does not fit its elements"),
        (b"", "EOFError"),
        (b"\x80\x04", "EOFError"),
        (b"\x80\xff.", "ValueError"),
    ],
)  # fmt: skip
def test_hostile_pickles_are_refused_quickly(program: bytes, message: str | None) -> None:
    if message is None:
        pickles.load(program, "it")
        return
    with pytest.raises(ImportPolicyError) as error:
        pickles.load(program, "it")
    assert message in str(error.value)
    assert "executed" in str(error.value)


@pytest.mark.parametrize(
    ("field", "module", "name", "message"),
    [
        ("policy_class", "stable_baselines3.sac.policies", "MultiInputPolicy", "class sac.policies.MultiInputPolicy"),
        ("policy_class", "sb3_contrib.ppo_recurrent", "RecurrentPolicy", "'sb3_contrib.ppo_recurrent.RecurrentPolicy'"),
        ("policy_class", "__main__", "MyPolicy", "'__main__.MyPolicy'"),
        ("observation_space", "gymnasium.spaces.dict", "Dict", "observations in a dict.Dict space"),
        ("observation_space", "gymnasium.spaces.discrete", "Discrete", "observations in a discrete.Discrete space"),
        ("action_space", "gymnasium.spaces.multi_discrete", "MultiDiscrete", "actions in a multi_discrete."),
        ("action_space", "gym.spaces.multi_binary", "MultiBinary", "actions in a multi_binary.MultiBinary space"),
    ],
)  # fmt: skip
def test_kinds_that_are_not_supported_are_named(
    field: str, module: str, name: str, message: str, tmp_path: Path
) -> None:
    program = f"c{module}\n{name}\n".encode() + b")\x81."
    path = with_data("ppo", tmp_path / "m.zip", lambda data: data.update({field: pickled(program)}))
    with pytest.raises(ImportPolicyError) as error:
        sb3.load(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"activation_fn": "<class 'torch.nn.modules.activation.ELU'>"},
        {"activation_fn": "<class 'torch.nn.modules.activation.LeakyReLU'>"},
        {"features_extractor_class": "<class '__main__.MyExtractor'>"},
        {"normalize_images": False},
        {"squash_output": "perhaps"},
        {"lstm_hidden_size": 64},
        {"activation_fn": {"a": []}},
    ],
)
def test_settings_that_are_not_supported_are_named(settings: dict[str, Any], tmp_path: Path) -> None:
    path = with_data("ppo", tmp_path / "m.zip", lambda data: data["policy_kwargs"].update(settings))
    ((name, value),) = settings.items()
    with pytest.raises(ImportPolicyError, match="not supported") as error:
        sb3.load(path)
    assert f"{name}={value}" in str(error.value)


def nested_list(levels: int) -> bytes:
    """A pickle's way to a list in which each holds the same one twice: short, and endless to print."""
    return b"]" + b"2\x86" * levels


def discrete(**attributes: bytes) -> bytes:
    """A pickle of a Discrete space with these attributes, themselves pickled."""
    pairs = b"".join(b"X" + struct.pack("<I", len(name)) + name.encode() + made for name, made in attributes.items())
    return b"\x80\x02cgymnasium.spaces.discrete\nDiscrete\n)\x81}(" + pairs + b"ub."


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (discrete(n=b"K\x03", start=nested_list(60)), "a choice of 3 actions from a tuple on; from 0 on"),
        (discrete(n=nested_list(60)), "a choice of a tuple actions from 0 on"),
        (discrete(n=b"K\x03", start=b"X\2\0\0\0\x1b["), r"actions from '\x1b[' on"),
        (b"\x80\x02cnumpy\ndtype\n(" + nested_list(60) + b"tR.", "an array of dtype a tuple, which is not of plain"),
        (b"\x80\x02cgym.spaces\n\x1b[2J\n)\x81.", r"actions in a '\x1b[2J' space"),
    ],
)
def test_what_a_file_says_is_printed_only_if_it_is_short_and_plain(
    program: bytes, message: str, tmp_path: Path
) -> None:
    path = with_data("ppo", tmp_path / "m.zip", lambda data: data.update({"action_space": pickled(program)}))
    with pytest.raises(ImportPolicyError) as error:
        sb3.load(path)
    assert message in str(error.value)


ESCAPE = "\x1b[2J\x1b]0;title\x07"


def test_what_a_model_says_of_itself_is_kept_without_control_characters(tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        members["_stable_baselines3_version"] = ESCAPE.encode()
        members["data"] = json.dumps({**json.loads(members["data"]), "num_timesteps": ESCAPE}).encode()

    origin = sb3.load(rewritten("ppo", tmp_path / "m.zip", change)).origin
    assert origin["stable_baselines3"] == repr(ESCAPE)
    assert origin["timesteps"] is None


def test_names_in_refusals_are_without_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [{ESCAPE: 1}, {"activation_fn": ESCAPE}]
    paths = [
        with_data("ppo", tmp_path / f"{i}.zip", lambda data, more=more: data["policy_kwargs"].update(more))
        for i, more in enumerate(settings)
    ]
    program = b"ctorch\n" + ESCAPE.encode() + b"\n."
    paths.append(with_data("ppo", tmp_path / "m.zip", lambda data: data.update({"policy_class": pickled(program)})))
    for path in paths:
        with pytest.raises(ImportPolicyError) as error:
            sb3.load(path)
        assert str(error.value).isprintable()
    with pytest.raises(ImportPolicyError) as error:
        pth.tensors(pth_file(described(key=b"X\x04\0\0\0" + b"\x1b[2J")), "it")
    assert str(error.value).isprintable()
    changed_tensors(monkeypatch, lambda tensors: tensors.update({ESCAPE: np.ones(1)}))
    with pytest.raises(ImportPolicyError) as error:
        sb3.load(MODELS / "ppo.zip")
    assert str(error.value).isprintable()


def changed_tensors(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    original = pth.tensors

    def tensors(data: bytes, where: str) -> dict[str, np.ndarray]:
        found = {name: tensor.copy() for name, tensor in original(data, where).items()}
        change(found)
        return found

    monkeypatch.setattr(pth, "tensors", tensors)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("ppo", lambda t: t.pop("action_net.bias"), "'action_net.bias'"),
        ("ppo", lambda t: t.pop("mlp_extractor.policy_net.0.weight"), "weights of a kind that is not supported"),
        ("ppo", lambda t: t.update({"mlp_extractor.shared_net.0.weight": np.ones(3)}), "mlp_extractor.shared_net.0"),
        ("ppo", lambda t: t.update({"lstm_actor.weight_ih_l0": np.ones(3)}), "lstm_actor.weight_ih_l0"),
        ("ppo", lambda t: t.update({"action_net.weight": np.ones((2, 17), np.float32)}), "do not fit each other"),
        ("ppo", lambda t: t.update({"action_net.weight": np.ones(16, np.float32)}), "has the shape (16,)"),
        ("ppo", lambda t: t["action_net.weight"].fill(np.nan), "NaN or infinity"),
        ("sac", lambda t: t.update({"actor.mu.0.weight": t.pop("actor.mu.weight")}), "gSDE with clip_mean"),
        ("td3", lambda t: [t.pop(name) for name in list(t) if "actor.mu" in name], "lacks weights"),
        ("dqn-cnn", lambda t: t.pop("q_net.features_extractor.cnn.2.weight"), "cnn.2.weight"),
        (
            "dqn-cnn",
            lambda t: t.update({"q_net.features_extractor.cnn.0.weight": np.ones((32, 3, 8, 8), np.float32)}),
            "does not fit 2x36x44",
        ),
        (
            "dqn-cnn",
            lambda t: t.update({"q_net.features_extractor.cnn.0.weight": np.ones((32, 2, 5, 5), np.float32)}),
            "has the shape (32, 2, 5, 5)",
        ),
        (
            "dqn-cnn",
            lambda t: t.update({"q_net.features_extractor.linear.0.weight": np.ones((16, 99), np.float32)}),
            "99 weights for each of 128 features",
        ),
    ],
)  # fmt: skip
def test_weights_that_are_not_those_of_the_policy_are_refused(
    source: str, change: Callable[[Any], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_tensors(monkeypatch, change)
    with pytest.raises(ImportPolicyError) as error:
        sb3.load(MODELS / f"{source}.zip")
    assert message in str(error.value)


def described(
    *, kind: str = "FloatStorage", offset: int = 0, shape: int = 4, stride: int = 1, key: bytes = b"X\1\0\0\x000"
) -> bytes:
    """A pickle of {"w": a tensor of one dimension}, in the way of torch.save."""
    reference = b"(X\x07\0\0\0storagectorch\n" + kind.encode() + b"\n" + key + b"X\x03\0\0\0cpuK\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference
    for number in (struct.pack("<i", offset), struct.pack("<i", shape), struct.pack("<i", stride)):
        tensor += b"J" + number + (b"" if number == struct.pack("<i", offset) and tensor.endswith(b"tQ") else b"\x85")
    return b"\x80\x02}X\x01\0\0\0w" + tensor + b"\x89ccollections\nOrderedDict\n)RtRs."


def chained() -> bytes:
    """A tensor of a tensor: one float repeated to the size of its storage, then read as if that many lay there."""

    def tensor(storage: bytes, *, offset: int, stride: int) -> bytes:
        numbers = b"K" + bytes([offset]) + b"K\x04\x85K" + bytes([stride]) + b"\x85"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers + b"tR"

    reference = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"
    repeated = tensor(reference, offset=3, stride=0)
    return b"\x80\x02}X\x01\0\0\0w" + tensor(repeated, offset=0, stride=1) + b"s."


def nested_tuple(levels: int) -> bytes:
    """A pickle's way to a tuple in which each holds the same one twice: short, and endless to print or hash."""
    return b")" + b"2\x86" * levels


def pth_file(description: bytes, storage: bytes = np.arange(4, dtype="<f4").tobytes(), **more: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in {"data.pkl": description, "data/0": storage, **more}.items():
            file.writestr(f"archive/{name}", content)
    return packed.getvalue()


def test_tensors_are_views_of_their_storage() -> None:
    np.testing.assert_array_equal(pth.tensors(pth_file(described()), "it")["w"], [0, 1, 2, 3])
    view = described(offset=1, shape=2, stride=2)
    np.testing.assert_array_equal(pth.tensors(pth_file(view), "it")["w"], [1, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pth_file(described(shape=5)), "larger than its storage"),
        (pth_file(described(offset=3, shape=2)), "larger than its storage"),
        (pth_file(described(shape=2**30, stride=0)), "larger than its storage"),
        (pth_file(described(shape=2, stride=2**30)), "larger than its storage"),
        (pth_file(described(offset=-1)), "without a proper shape"),
        (pth_file(described(shape=2, stride=-1)), "without a proper shape"),
        (pth_file(chained()), "a tensor whose storage is none"),
        (pth_file(described(key=nested_tuple(60))), "a tensor whose storage is none"),
        (pth_file(described(kind="DoubleStorage")), "torch.DoubleStorage, where only float32"),
        (pth_file(described(), byteorder=b"big"), "big-endian"),
        (pth_file(b"\x80\x02]."), "something other than the tensors"),
        (b"PK", "no ZIP archive"),
        (b"\x80\x02.", "no ZIP archive"),
    ],
)
def test_tensors_that_are_not_there_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ImportPolicyError) as error:
        pth.tensors(content, "it")
    assert message in str(error.value)


def test_tensors_that_share_a_storage_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = described().removeprefix(b"\x80\x02}").removesuffix(b"s.")
    twice = b"\x80\x02}" + one + b"s" + one.replace(b"X\x01\0\0\0w", b"X\x01\0\0\0v") + b"s."
    assert set(pth.tensors(pth_file(twice), "it")) == {"v", "w"}
    monkeypatch.setattr(pth, "MAX_BYTES", 31)
    with pytest.raises(ImportPolicyError, match="more than 0 MiB of tensors"):
        pth.tensors(pth_file(twice), "it")


def test_archives_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    bomb = rewritten("ppo", tmp_path / "bomb.zip", lambda members: members.update({"data": b" " * (17 * 2**20)}))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ImportPolicyError, match=r"data in .* claims 17825792 bytes: refused"):
        sb3.load(bomb)
    many = rewritten("ppo", tmp_path / "many.zip", lambda members: members.update({str(i): b"" for i in range(1001)}))
    with pytest.raises(ImportPolicyError, match="more than 1000 members"):
        sb3.load(many)
    large = io.BytesIO((MODELS / "ppo.zip").read_bytes())
    content = bytearray(large.getvalue())
    # The claimed size of the last member in the archive's directory.
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 24, 2**31)
    (tmp_path / "large.zip").write_bytes(content)
    with pytest.raises(ImportPolicyError, match=r"claims to unpack to 20.. MiB"):
        sb3.load(tmp_path / "large.zip")


def test_an_archive_that_claims_less_than_it_unpacks_to_is_refused_in_little_memory(tmp_path: Path) -> None:
    n = 256 * 2**20
    bomb = rewritten("ppo", tmp_path / "bomb.zip", lambda members: members.update({"data": bytes(n)}))
    bomb.write_bytes(bomb.read_bytes().replace(struct.pack("<I", n), struct.pack("<I", 100)))
    tracemalloc.start()
    try:
        with pytest.raises(ImportPolicyError, match=r"data in .* cannot be read"):
            sb3.load(bomb)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_names_of_members_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = rewritten("ppo", tmp_path / "in/m.zip", lambda members: members.update({"../evil": b"x", "/tmp/evil": b"x"}))
    sb3.load(path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "m.zip"]


@pytest.mark.parametrize("name", ["ppo.zip", "ppo-normalized.pkl"])
def test_damaged_files_are_refused_or_read(name: str, tmp_path: Path) -> None:
    content = (MODELS / name).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(60):
        damaged = bytearray(content[: rng.integers(1, len(content))] if i % 2 else content)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        (tmp_path / "damaged").write_bytes(damaged)
        # What is left is a policy, or none; nothing else may come of it.
        with contextlib.suppress(ImportPolicyError):
            if name.endswith("zip"):
                sb3.load(tmp_path / "damaged")
            else:
                sb3_spec.normalizer(tmp_path / "damaged", load("ppo").spec.observation)


def test_files_that_are_not_there_or_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportPolicyError, match=r"Cannot read .*none\.zip: No such file"):
        sb3.load(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(ImportPolicyError, match="is no ZIP archive"):
        sb3.load(tmp_path / "text.zip")
    with pytest.raises(ImportPolicyError, match="lacks data"):
        sb3.load(rewritten("ppo", tmp_path / "m.zip", lambda members: members.pop("data")))


def test_statistics_of_another_model_are_refused(tmp_path: Path) -> None:
    statistics = MODELS / "ppo-normalized.pkl"
    with pytest.raises(ImportPolicyError, match="normalises frames"):
        sb3.load(MODELS / "ppo-cnn.zip", statistics)
    policy_class = json.loads(zipfile.ZipFile(MODELS / "ppo.zip").read("data"))["observation_space"][":serialized:"]
    (tmp_path / "space.pkl").write_bytes(base64.b64decode(policy_class))
    with pytest.raises(ImportPolicyError, match=r"is not what VecNormalize\.save writes"):
        sb3.load(MODELS / "ppo.zip", tmp_path / "space.pkl")


def statistics(**attributes: bytes) -> bytes:
    """A pickle of a VecNormalize of three numbers, with these attributes (pickled) in place of its own."""
    text = {name: b"X" + struct.pack("<I", len(name)) + name.encode() for name in (*attributes, "mean", "var")}
    array = pickle.dumps(np.ones(3), 4)[11:-1]
    moments = b"cstable_baselines3.common.running_mean_std\nRunningMeanStd\n)\x81}("
    moments += text["mean"] + array + text["var"] + array + b"ub"
    made = {"obs_rms": moments, "clip_obs": b"K\x05", "epsilon": b"K\0", **attributes}
    pairs = b"".join(b"X" + struct.pack("<I", len(name)) + name.encode() + value for name, value in made.items())
    return b"\x80\x04cstable_baselines3.common.vec_env.vec_normalize\nVecNormalize\n)\x81}(" + pairs + b"ub."


@pytest.mark.parametrize(
    ("attributes", "clip"),
    [({}, 5.0), ({"clip_obs": b"G" + struct.pack(">d", np.inf), "epsilon": b"K\x03"}, None)],
)
def test_statistics_may_be_without_clipping_and_in_whole_numbers(
    attributes: dict[str, bytes], clip: float | None, tmp_path: Path
) -> None:
    (tmp_path / "s.pkl").write_bytes(statistics(**attributes))
    normalizer = sb3_spec.normalizer(tmp_path / "s.pkl", load("ppo").spec.observation)
    assert normalizer is not None
    assert normalizer.clip == clip
    assert normalizer.std == ((2.0,) * 3 if attributes else (1.0,) * 3)


@pytest.mark.parametrize(
    "attributes",
    [{"clip_obs": b"K\0"}, {"clip_obs": b"G" + struct.pack(">d", np.nan)}, {"epsilon": b"J\xff\xff\xff\xff"},
     {"epsilon": b"G" + struct.pack(">d", np.inf)}, {"clip_obs": b"N"}, {"epsilon": b"\x88"}],
)  # fmt: skip
def test_statistics_without_proper_numbers_are_refused(attributes: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "s.pkl").write_bytes(statistics(**attributes))
    with pytest.raises(ImportPolicyError, match="no proper clip_obs and epsilon"):
        sb3_spec.normalizer(tmp_path / "s.pkl", load("ppo").spec.observation)


@pytest.mark.parametrize("numpy_module", [b"numpy._core", b"numpy.core"])
def test_arrays_of_older_and_newer_numpy_are_read(numpy_module: bytes) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (2, 3, 4, 5):
        for order in "CF":
            if protocol == 2:
                continue  # bytes were text then; neither VecNormalize nor cloudpickle writes that
            content = pickle.dumps(np.asarray(array, order=order), protocol=protocol)
            length = {b"numpy._core.multiarray": 22, b"numpy._core.numeric": 19}
            for name in length:
                new = name.replace(b"numpy._core", numpy_module)
                content = content.replace(bytes([len(name)]) + name, bytes([len(new)]) + new)
                content = content.replace(b"c" + name, b"c" + new)
            if protocol >= 4 and len(numpy_module) != len(b"numpy._core"):
                content = content[:3] + struct.pack("<Q", len(content) - 11) + content[11:]
            found = pickles.array(pickles.load(content, "it"))
            np.testing.assert_array_equal(found, array)
