import errno
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import DATA

from edge import artifact, cli, interpreter, signature
from edge.errors import ArtifactError, OutputError, SignatureError, UnsignedError
from edge.policy import Policy
from edge.signature import COMMENT_BYTES, KeyFileError, make_key, sign

pytest.importorskip("cryptography", reason="signatures need `pip install 'tfqrl[sign]'`")

ARM = (DATA / "arm-int8.tflite").read_bytes()
LEVER = (DATA / "lever-int8.tflite").read_bytes()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "maker")
    return tmp_path / "maker"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name("maker.pub")


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    path = tmp_path / "signed.tflite"
    path.write_bytes(sign(ARM, key))
    return path


def test_a_signed_policy_is_read_where_its_key_is_trusted(signed: Path, public: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    assert artifact.read(signed, trust=[other, public]).manifest.name == "arm"
    assert Policy.load(signed, trust=[public]).name == "arm"


def test_a_signed_policy_is_still_the_same_policy_and_archive(signed: Path) -> None:
    assert artifact.read(signed).flatbuffer == artifact.from_bytes(ARM).flatbuffer
    with zipfile.ZipFile(signed) as archive:
        assert archive.testzip() is None
        assert len(archive.comment) == COMMENT_BYTES
    interpreter.build(signed.read_bytes(), 1)


def test_signing_again_replaces_the_signature_and_gives_equal_bytes(signed: Path, key: Path, tmp_path: Path) -> None:
    once = signed.read_bytes()
    assert len(once) == len(ARM) + COMMENT_BYTES
    assert sign(once, key) == sign(ARM, key) == once
    make_key(tmp_path / "other")
    other = sign(once, tmp_path / "other")
    assert other == sign(ARM, tmp_path / "other") != once
    signature.check(other, [tmp_path / "other.pub"])


def test_every_changed_byte_is_noticed(key: Path, public: Path) -> None:
    whole = sign(ARM, key)
    signature.check(whole, [public])
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        with pytest.raises((UnsignedError, SignatureError)):
            signature.check(bytes(altered), [public])


def cut(data: bytes, key: Path) -> bytes:
    return data[:-1]


def cut_in_front(data: bytes, key: Path) -> bytes:
    return data[1:]


def extended(data: bytes, key: Path) -> bytes:
    return data + b"\0"


def extended_before_the_signature(data: bytes, key: Path) -> bytes:
    return data[:-COMMENT_BYTES] + b"\0" + data[-COMMENT_BYTES:]


def with_the_signature_of_another_file(data: bytes, key: Path) -> bytes:
    return data[:-COMMENT_BYTES] + sign(LEVER, key)[-COMMENT_BYTES:]


def with_the_key_of_another(data: bytes, key: Path) -> bytes:
    make_key(key.with_name("another"))
    return sign(data, key.with_name("another"))


def with_the_trusted_key_over_the_signature_of_another(data: bytes, key: Path) -> bytes:
    forged = with_the_key_of_another(data, key)
    return forged[:-COMMENT_BYTES] + data[-COMMENT_BYTES:-64] + forged[-64:]


def without_signature(data: bytes, key: Path) -> bytes:
    return ARM


def empty(data: bytes, key: Path) -> bytes:
    return b""


CHANGES = [
    (cut, UnsignedError),
    (cut_in_front, SignatureError),
    (extended, UnsignedError),
    (extended_before_the_signature, SignatureError),
    (with_the_signature_of_another_file, SignatureError),
    (with_the_key_of_another, SignatureError),
    (with_the_trusted_key_over_the_signature_of_another, SignatureError),
    (without_signature, UnsignedError),
    (empty, UnsignedError),
]


@pytest.mark.parametrize(("change", "error"), CHANGES)
def test_what_is_not_signed_as_it_is_is_refused_before_it_is_parsed(
    change: Callable[[bytes, Path], bytes],
    error: type[ArtifactError],
    signed: Path,
    key: Path,
    public: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = []
    for module, name in ((artifact, "from_bytes"), (zipfile, "ZipFile"), (interpreter, "build")):
        monkeypatch.setattr(module, name, lambda *args, name=name, **options: reached.append(name))
    signed.write_bytes(change(signed.read_bytes(), key))
    with pytest.raises(error):
        Policy.load(signed, trust=[public])
    for command in ("verify", "bench", "run"):
        assert cli.main([command, str(signed), "--trust", str(public), "--require-signature"]) == 1
    assert reached == []


def test_nothing_is_trusted_where_no_key_is(signed: Path) -> None:
    with pytest.raises(SignatureError, match="none of the 0 trusted"):
        artifact.read(signed, trust=[])


def test_one_file_may_hold_several_keys(signed: Path, public: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    (tmp_path / "both.pub").write_bytes(other.read_bytes() + public.read_bytes())
    assert artifact.read(signed, trust=[tmp_path / "both.pub"]).manifest.name == "arm"


def test_a_signature_is_required_of_someone(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(signed), "--require-signature"]) == 2
    assert "add --trust KEY.pub" in capsys.readouterr().err


def test_verify_says_that_a_signed_policy_is_good(
    signed: Path, public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(signed), "--trust", str(public), "--require-signature"]) == 0
    assert "OK: arm" in capsys.readouterr().out


def test_a_private_key_is_its_owners_alone_and_never_replaced(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        make_key(key)
    assert key.read_bytes() == before


def test_a_public_key_is_never_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "maker.pub").write_bytes(b"of another pair")
    with pytest.raises(OutputError, match=r"maker\.pub exists already"):
        make_key(tmp_path / "maker")
    assert (tmp_path / "maker.pub").read_bytes() == b"of another pair"
    assert not (tmp_path / "maker").exists()


def test_half_a_pair_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def full(path, *rest):
        if str(path).endswith(".pub"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *rest)

    monkeypatch.setattr(signature.os, "open", full)
    with pytest.raises(OutputError, match="No space left"):
        make_key(tmp_path / "maker")
    assert list(tmp_path.iterdir()) == []


def test_keys_of_openssl_are_taken(tmp_path: Path) -> None:
    # The pair of RFC 8032, section 7.1, test 1, in the form that `openssl genpkey` and `openssl pkey -pubout` write.
    private = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"
    public = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    (tmp_path / "key").write_text(f"-----BEGIN PRIVATE KEY-----\n{private}\n-----END PRIVATE KEY-----\n")
    (tmp_path / "key.pub").write_text(f"-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n")
    signature.check(sign(ARM, tmp_path / "key"), [tmp_path / "key.pub"])


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused_by_name(content: bytes, signed: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pub").write_bytes(content)
    with pytest.raises(KeyFileError, match=r"bad\.pub"):
        artifact.read(signed, trust=[tmp_path / "bad.pub"])
    with pytest.raises(KeyFileError, match=r"bad\.pub"):
        sign(ARM, tmp_path / "bad.pub")
    with pytest.raises(KeyFileError, match="No such file"):
        sign(ARM, tmp_path / "none")


def test_public_and_private_keys_are_not_taken_for_each_other(signed: Path, key: Path, public: Path) -> None:
    with pytest.raises(KeyFileError, match="no private key"):
        sign(ARM, public)
    with pytest.raises(KeyFileError, match=r"must hold public Ed25519 keys"):
        artifact.read(signed, trust=[key])


def test_a_key_of_another_kind_is_refused(signed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    other = x25519.X25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    (tmp_path / "x").write_bytes(
        other.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "x.pub").write_bytes(
        other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(KeyFileError, match="not an Ed25519 key"):
        sign(ARM, tmp_path / "x")
    with pytest.raises(KeyFileError, match="public Ed25519 keys"):
        artifact.read(signed, trust=[tmp_path / "x.pub"])


def test_only_what_ends_like_a_policy_is_signed(key: Path) -> None:
    file = io.BytesIO(ARM)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"of someone else"
    for data in (b"", ARM[:-1], ARM + b"\0\0", file.getvalue()):
        with pytest.raises(ArtifactError, match="does not end as a policy file does"):
            sign(data, key)
