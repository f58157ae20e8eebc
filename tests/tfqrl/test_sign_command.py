from pathlib import Path

import pytest
from fakes import DATA

from edge import artifact
from edge.errors import UnsignedError
from tfqrl import cli

pytest.importorskip("cryptography", reason="signatures need `pip install 'tfqrl[sign]'`")


def test_a_policy_is_signed_with_a_key_made_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, key = tmp_path / "policy.tflite", tmp_path / "maker"
    policy.write_bytes((DATA / "arm-int8.tflite").read_bytes())
    assert cli.main(["sign-key", str(key)]) == 0
    assert f"{key}.pub" in capsys.readouterr().out
    assert cli.main(["sign", str(policy), "--key", str(key), "--out", str(tmp_path / "signed.tflite")]) == 0
    assert artifact.read(tmp_path / "signed.tflite", trust=[f"{key}.pub"]).manifest.name == "arm"
    with pytest.raises(UnsignedError):
        artifact.read(policy, trust=[f"{key}.pub"])
    assert cli.main(["sign", str(policy), "--key", str(key)]) == 0
    assert policy.read_bytes() == (tmp_path / "signed.tflite").read_bytes()
    assert cli.main(["sign", __file__, "--key", str(key)]) == 1
    assert cli.main(["sign-key", str(key)]) == 1
    assert "exists already" in capsys.readouterr().err
    other = ["sign", str(policy), "--key", str(key), "--out", str(tmp_path / "other.tflite")]
    (tmp_path / "other.tflite").write_bytes(b"another")
    assert cli.main(other) == 2
    assert "or --force to replace it" in capsys.readouterr().err
    assert (tmp_path / "other.tflite").read_bytes() == b"another"
    assert cli.main([*other, "--force"]) == 0
    assert (tmp_path / "other.tflite").read_bytes() == policy.read_bytes()
    assert (
        cli.main(["sign", str(policy), "--key", str(key), "--out", f"{tmp_path}/../{tmp_path.name}/{policy.name}"]) == 0
    )


def test_what_was_looked_at_is_what_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, original = tmp_path / "policy.tflite", artifact.from_bytes
    policy.write_bytes((DATA / "arm-int8.tflite").read_bytes())

    def exchanged(data: bytes, source: str = "policy") -> artifact.Artifact:
        policy.write_bytes((DATA / "arm-float32.tflite").read_bytes())
        return original(data, source)

    assert cli.main(["sign-key", str(tmp_path / "maker")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "from_bytes", exchanged)
        assert cli.main(["sign", str(policy), "--key", str(tmp_path / "maker")]) == 0
    assert artifact.read(policy).flatbuffer == artifact.read(DATA / "arm-int8.tflite").flatbuffer
