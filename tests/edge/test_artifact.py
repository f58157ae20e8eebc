import dataclasses
import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fakes import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import artifact
from edge.errors import (
    ArtifactError,
    HashMismatchError,
    ManifestError,
    ManifestMissingError,
    NotTFLiteError,
    OutputError,
    SchemaVersionError,
    TruncatedArtifactError,
)
from edge.policy import Policy

ARM = (DATA / "arm-int8.tflite").read_bytes()
WHOLE = artifact.from_bytes(ARM)


def rebuilt(
    change=lambda manifest: manifest, *, names=(artifact.MANIFEST, artifact.GOLDEN), golden=None, file_bytes=ARM
) -> bytes:
    """The arm's file, or another, with another manifest or other golden pairs."""
    source = artifact.from_bytes(file_bytes)
    with zipfile.ZipFile(io.BytesIO(file_bytes)) as archive:
        members = {name: archive.read(name) for name in (artifact.MANIFEST, artifact.GOLDEN)}
    members[artifact.MANIFEST] = json.dumps(change(json.loads(members[artifact.MANIFEST]))).encode()
    if golden is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **golden)
        members[artifact.GOLDEN] = buffer.getvalue()
    file = io.BytesIO(source.flatbuffer)
    with zipfile.ZipFile(file, "a") as archive:
        for name in names:
            archive.writestr(name, members[name])
    return file.getvalue()


@pytest.mark.parametrize("name", ["arm-float32", "arm-int8", "switch-float32", "switch-int8"])
def test_golden_artefacts_still_read_and_are_written_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    path = DATA / f"{name}.tflite"
    source = artifact.read(path)
    assert source.manifest.recipe["name"] == name.split("-")[1]
    artifact.write(tmp_path / "copy.tflite", source)
    again = artifact.read(tmp_path / "copy.tflite")
    assert again.manifest == source.manifest
    assert again.flatbuffer == source.flatbuffer
    # Written twice, it is the same file: policies can be told apart by their checksum.
    assert artifact.to_bytes(again) == artifact.to_bytes(source)


def test_a_manifest_of_version_1_is_still_read() -> None:
    def older(manifest):
        del manifest["compressed_bytes"], manifest["notes"], manifest["spec"]["observation"]["dtype"]
        return {**manifest, "schema_version": 1}

    # As written now, with every field; then without those that version 1 had not.
    source = artifact.from_bytes(rebuilt(older, file_bytes=artifact.to_bytes(artifact.from_bytes(ARM))))
    assert source.manifest.schema_version == 1
    assert source.manifest.spec.observation.dtype == "float32"
    assert not source.manifest.spec.observation.frames
    assert (source.manifest.notes, source.manifest.compressed_bytes) == ((), None)
    assert Policy.from_artifact(source).act(source.golden.observations[0]).shape == (2,)


@pytest.mark.parametrize("recipe", ["float32", "logits", "int8-full", "int8-logits", "uint8-full"])
def test_golden_frames_are_bytes_and_are_written_as_such(recipe: str, tmp_path: Path) -> None:
    source = artifact.read(DATA / f"glance-{recipe}.tflite")
    assert source.manifest.spec.observation.frames
    assert (source.golden.observations.dtype, source.golden.observations.shape) == (np.uint8, (34, 12, 12, 2))
    artifact.write(tmp_path / "copy.tflite", source)
    again = artifact.read(tmp_path / "copy.tflite")
    assert again.manifest == source.manifest
    np.testing.assert_array_equal(again.golden.observations, source.golden.observations)


def in_observation(**changed):
    return lambda m: {**m, "spec": {**m["spec"], "observation": {**m["spec"]["observation"], **changed}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_observation(low=[0.0] * 288, high=[255.0] * 288), "288 values in spec.observation.low; expected 0"),
        (in_observation(shape=[12, 24]), "frames of shape .12, 24.; expected height, width and channels"),
        (in_observation(shape=[12, 0, 2]), "expected height, width and channels"),
        (in_observation(dtype="int8"), "dtype"),
        (in_observation(dtype="float32"), "0 values in spec.observation.low; expected 288"),
        (
            lambda m: {**m, "spec": {**m["spec"], "normalizer": {"mean": [0.0], "std": [1.0], "clip": None}}},
            "a normaliser for frames, which are divided by 255",
        ),
        (
            lambda m: {**m, "spec": {**m["spec"], "action": {**m["spec"]["action"], "shape": [2]}}},
            "gives a choice the shape .2.; it has none",
        ),
    ],
)
def test_a_manifest_of_frames_that_are_none_is_refused(change, message: str) -> None:
    glance = (DATA / "glance-int8-full.tflite").read_bytes()
    with pytest.raises(ManifestError, match=message):
        artifact.from_bytes(rebuilt(change, file_bytes=glance))


@pytest.mark.parametrize(("shape", "dtype"), [((2, 12, 12, 2), np.float32), ((2, 12, 12, 3), np.uint8)])
def test_golden_frames_of_another_type_or_shape_are_refused(shape: tuple[int, ...], dtype: type) -> None:
    glance = (DATA / "glance-int8-full.tflite").read_bytes()
    golden = {"observations": np.zeros(shape, dtype), "actions": np.zeros(2, np.int64)}
    with pytest.raises(ManifestError, match="do not fit its spec"):
        artifact.from_bytes(rebuilt(golden=golden, file_bytes=glance))


def test_the_archive_is_one_that_other_programs_read() -> None:
    with zipfile.ZipFile(DATA / "arm-int8.tflite") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["golden.npz", "manifest.json"]
        assert json.loads(archive.read("manifest.json"))["name"] == "arm"


def test_the_interpreter_takes_the_whole_file_as_a_model() -> None:
    # "Every TFLite runtime ignores it": other people's tools open our files.
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter_module.Interpreter(model_path=str(DATA / "arm-int8.tflite")).allocate_tensors()


def test_an_existing_file_is_not_replaced_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "policy.tflite"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError):
        artifact.write(path, artifact.from_bytes(ARM))
    assert path.read_bytes() == b"mine"


def test_every_truncation_is_a_named_error() -> None:
    for length in range(0, len(ARM), 37):
        with pytest.raises((NotTFLiteError, ManifestMissingError, TruncatedArtifactError)):
            artifact.from_bytes(ARM[:length])


def test_a_cut_in_the_archive_is_told_from_a_file_without_one() -> None:
    flatbuffer = artifact.from_bytes(ARM).flatbuffer
    with pytest.raises(ManifestMissingError, match="plain TFLite file"):
        artifact.from_bytes(flatbuffer)
    with pytest.raises(TruncatedArtifactError, match="cut short"):
        artifact.from_bytes(ARM[:-30])


def rebuilt_with(manifest: bytes) -> bytes:
    """The arm's file with these bytes as manifest."""
    file = io.BytesIO(WHOLE.flatbuffer)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(artifact.MANIFEST, manifest)
        archive.writestr(artifact.GOLDEN, b"")
    return file.getvalue()


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x89PNG\r\n\x1a\n" * 20, json.dumps({"TFL3": 1}).encode()])
def test_another_kind_of_file_is_refused(data: bytes) -> None:
    with pytest.raises(NotTFLiteError, match="lacks the identifier TFL3"):
        artifact.from_bytes(data)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        artifact.read(tmp_path / "none.tflite")


def test_an_altered_model_is_refused() -> None:
    n = artifact.from_bytes(ARM).manifest.flatbuffer_bytes
    for place in (8, n // 2, n - 1):
        altered = bytearray(ARM)
        altered[place] ^= 1
        with pytest.raises(HashMismatchError, match="SHA-256 differs"):
            artifact.from_bytes(bytes(altered))


def test_a_newer_schema_is_refused_with_what_to_do() -> None:
    with pytest.raises(SchemaVersionError, match="Upgrade tfqrl"):
        artifact.from_bytes(rebuilt(lambda m: {**m, "schema_version": artifact.SCHEMA_VERSION + 1, "new_key": 0}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {**m, "schema_version": None}, "no schema_version"),
        (lambda m: [m], "no schema_version"),
        (lambda m: {**m, "nmae": "x"}, "Did you mean 'name'"),
        (lambda m: {k: v for k, v in m.items() if k != "spec"}, "lacks 'spec'"),
        (lambda m: {**m, "golden_tolerance": [0.1]}, "1 values in golden_tolerance; expected 2"),
        (lambda m: {**m, "golden_tolerance": [float("nan"), 0.1]}, "golden_tolerance"),
        (lambda m: {**m, "golden_tolerance": [10**400, 0.1]}, "golden_tolerance"),
        (lambda m: {**m, "spec": {**m["spec"], "control_rate_hz": -5.0}}, "a control rate of -5 Hz"),
        (lambda m: {**m, "spec": {**m["spec"], "control_rate_hz": 0}}, "a control rate of 0 Hz"),
        (lambda m: {**m, "recipe": {}}, "does not name its recipe"),
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused(change, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        artifact.from_bytes(rebuilt(change))


def test_a_file_without_golden_pairs_is_refused() -> None:
    with pytest.raises(ManifestMissingError, match=r"golden\.npz"):
        artifact.from_bytes(rebuilt(names=(artifact.MANIFEST,)))


@pytest.mark.parametrize(
    "golden",
    [
        {"observations": np.zeros((2, 3), np.float32)},
        {"observations": np.zeros((2, 4), np.float32), "actions": np.zeros((2, 2), np.float32)},
        {"observations": np.zeros((0, 3), np.float32), "actions": np.zeros((0, 2), np.float32)},
        {"observations": np.zeros((2, 3), np.float32), "actions": np.zeros((3, 2), np.float32)},
        {"observations": np.zeros((2, 3), np.float32), "actions": np.zeros((2, 2), np.int64)},
    ],
)
def test_golden_pairs_that_do_not_fit_are_refused(golden) -> None:
    with pytest.raises(ManifestError, match="golden pairs"):
        artifact.from_bytes(rebuilt(golden=golden))


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (np.full((2, 3), np.nan, np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros((2, 3), np.float64), np.zeros((2, 2), np.float32)),
        (np.zeros((artifact.MAX_GOLDEN_PAIRS + 1, 3), np.float32), np.zeros((10_001, 2), np.float32)),
        (np.float32(1.0), np.float32(1.0)),
    ],
)
def test_golden_pairs_that_no_policy_could_be_tried_on_are_refused(observations, actions) -> None:
    with pytest.raises(ManifestError, match="golden pairs"):
        artifact.from_bytes(rebuilt(golden={"observations": observations, "actions": actions}))


@pytest.mark.parametrize("member", [b"", b"\x93NUM", b"PK"])
def test_golden_pairs_that_are_no_arrays_are_refused(member: bytes) -> None:
    golden, file = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(golden, "w") as archive:
        archive.writestr("observations.npy", member)
        archive.writestr("actions.npy", member)
    file.write(WHOLE.flatbuffer)
    with zipfile.ZipFile(file, "a") as archive, zipfile.ZipFile(io.BytesIO(ARM)) as whole:
        archive.writestr(artifact.MANIFEST, whole.read(artifact.MANIFEST))
        archive.writestr(artifact.GOLDEN, golden.getvalue())
    with pytest.raises(ManifestError, match="golden pairs"):
        artifact.from_bytes(file.getvalue())


@pytest.mark.parametrize(
    "recipe", ['{"name": "\\ud800"}', '{"name": "int8", "x": NaN}', '{"name": "x", "y": ' + "[" * 900 + "]" * 900 + "}"]
)
def test_a_manifest_that_could_not_be_written_or_printed_again_is_refused(recipe: str) -> None:
    text = json.dumps({**json.loads(json.dumps(dataclasses.asdict(WHOLE.manifest))), "recipe": "HERE"})
    data = rebuilt_with(text.replace('"HERE"', recipe).encode())
    with pytest.raises(ManifestError):
        artifact.from_bytes(data)


@pytest.mark.parametrize("text", [b"[" * 100_000, b" " * (artifact.MAX_MANIFEST_BYTES + 1)])
def test_a_manifest_that_is_too_deep_or_too_long_is_refused(text: bytes) -> None:
    with pytest.raises(ManifestError):
        artifact.from_bytes(rebuilt_with(text))


def test_members_of_the_same_name_and_endless_archives_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = rebuilt(names=(artifact.MANIFEST, artifact.GOLDEN, artifact.MANIFEST))
    with pytest.raises(ManifestError, match="two members of the same name"):
        artifact.from_bytes(twice)
    with pytest.raises(ManifestError, match="more than 1000 entries"):
        artifact.from_bytes(ARM + b"PK\x01\x02" * 1001)


def test_a_device_is_not_read_to_its_end() -> None:
    with pytest.raises(ArtifactError, match="not a regular file"):
        artifact.read("/dev/zero")


def test_a_model_that_the_interpreter_stumbles_over_is_refused_by_name(tmp_path: Path) -> None:
    # The name of its input is not text any more; the papers are right again.
    flatbuffer = bytearray(WHOLE.flatbuffer)
    name = Policy(WHOLE.flatbuffer, WHOLE.manifest.spec)._interpreter.get_input_details()[0]["name"].encode()
    place = flatbuffer.index(name)
    flatbuffer[place] = 0xFF
    manifest = dataclasses.replace(WHOLE.manifest, flatbuffer_sha256=artifact.sha256(bytes(flatbuffer)))
    artifact.write(tmp_path / "x.tflite", artifact.Artifact(manifest, bytes(flatbuffer), WHOLE.golden))
    with pytest.raises(NotTFLiteError, match=r"cannot (load|run)"):
        Policy.load(tmp_path / "x.tflite")


def test_pickled_golden_pairs_are_not_unpickled(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    golden = {"observations": np.array([Payload()], object), "actions": np.zeros((1, 2), np.float32)}
    with pytest.raises(ManifestError):
        artifact.from_bytes(rebuilt(golden=golden))
    assert not (tmp_path / "executed").exists()


def test_a_member_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(ManifestError, match="claims"):
        artifact.from_bytes(ARM)


@pytest.mark.parametrize("inner", [False, True])
def test_an_archive_that_claims_less_than_it_unpacks_to_is_refused_in_little_memory(inner: bool) -> None:
    n = 256 * 2**20
    file, golden = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(golden, "w", zipfile.ZIP_DEFLATED) as archive:
        # numpy reads a member that is no array whole.
        archive.writestr("observations.npy", bytes(n if inner else 1))
    file.write(WHOLE.flatbuffer)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive, zipfile.ZipFile(io.BytesIO(ARM)) as whole:
        archive.writestr(artifact.MANIFEST, whole.read(artifact.MANIFEST) if inner else bytes(n))
        small = golden.getvalue().replace(struct.pack("<I", n), struct.pack("<I", 2**23))
        archive.writestr(artifact.GOLDEN, small, zipfile.ZIP_STORED)
    data = file.getvalue().replace(struct.pack("<I", n), struct.pack("<I", 100))
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError):
            artifact.from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def read_or_named_error(data: bytes) -> None:
    try:
        source = artifact.from_bytes(data)
    except ArtifactError:
        return
    # Damage in the archive's own bookkeeping may go unnoticed, but what was read is then what was written.
    assert source.manifest == WHOLE.manifest
    np.testing.assert_array_equal(source.golden.actions, WHOLE.golden.actions)
    np.testing.assert_array_equal(source.golden.observations, WHOLE.golden.observations)


def test_every_bit_of_the_archive_may_flip() -> None:
    for place in range(WHOLE.manifest.flatbuffer_bytes, len(ARM)):
        for bit in range(8):
            damaged = bytearray(ARM)
            damaged[place] ^= 1 << bit
            read_or_named_error(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(ARM) - 1), st.binary(min_size=1, max_size=8))
def test_any_damage_is_a_named_error_or_harmless(place: int, garbage: bytes) -> None:
    read_or_named_error(ARM[:place] + garbage + ARM[place + len(garbage) :])


def test_a_changed_golden_action_stops_the_policy_from_loading(tmp_path: Path) -> None:
    from edge.errors import GoldenMismatchError

    source = artifact.from_bytes(ARM)
    actions = source.golden.actions.copy()
    actions[3, 1] += 2 * source.manifest.golden_tolerance[1]
    golden = dataclasses.replace(source.golden, actions=actions)
    artifact.write(tmp_path / "policy.tflite", dataclasses.replace(source, golden=golden))
    with pytest.raises(GoldenMismatchError, match="1 of 37 golden actions differ"):
        Policy.load(tmp_path / "policy.tflite")
