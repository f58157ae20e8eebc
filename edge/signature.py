"""Signed policy files: who made this policy, and is it still as it was made?

A policy file is a flatbuffer and a ZIP archive. The signature is the archive's comment, so it is the last 114 bytes of
the file, and ZIP tools and TFLite runtimes read the file as before:

    tfqrl-signature-1:   18 bytes
    public key           32 bytes, Ed25519
    signature            64 bytes, Ed25519, over every byte of the file before these 114

The length of the comment lies before it and is signed with the rest. Checking therefore reads nothing but the file's
end and its length: no flatbuffer, no archive, until the signature is known to be good.

Keys are PEM files, as `openssl genpkey -algorithm ed25519` makes them too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.errors import ArtifactError, OutputError, SignatureError, UnsignedError, UserError

MAGIC = b"tfqrl-signature-1:"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
COMMENT_BYTES = len(MAGIC) + KEY_BYTES + SIGNATURE_BYTES

# The record that ends every ZIP archive: its identifier, and its length without the comment, whose length it ends with.
_END_OF_ARCHIVE = b"PK\x05\x06"
_END_OF_ARCHIVE_BYTES = 22

_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)


class KeyFileError(UserError):
    """A key file that cannot be read, or holds no key of the kind that is needed."""


def make_key(path: str | Path) -> Path:
    """Write a new private key to `path` (mode 0600) and its public key to `path`.pub; returns the latter.

    Raises:
      OutputError: a file cannot be written, or one of them exists: a key that was in use must not be lost.
    """
    _, ed25519, serialization = _cryptography()
    path = Path(path)
    public_path = path.with_name(path.name + ".pub")
    key = ed25519.Ed25519PrivateKey.generate()
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    for file in (path, public_path):
        if file.exists():
            raise OutputError(f"{file} exists already. Give another name; a lost key cannot be made again.")
    made: list[Path] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with its mode rather than given it afterwards: nobody else may read it, not even for a moment.
        for file, data, mode in ((path, private, 0o600), (public_path, public, 0o666)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(file)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(data)
    except OSError as error:
        for file in made:
            file.unlink(missing_ok=True)
        raise OutputError(f"Cannot write {file}: {error.strerror or error}.") from error
    return public_path


def sign(data: bytes, key: str | Path, source: str = "policy") -> bytes:
    """The bytes of a policy file with a signature, in place of any that they had. Equal input gives equal bytes.

    Args:
      data: the bytes of a whole policy file.
      key: file of the private key.
      source: what error messages call the policy.

    Raises:
      KeyFileError: there is no private Ed25519 key in `key`.
      ArtifactError: the file does not end as tfqrl writes it.
    """
    private = _private_key(Path(key))
    _, _, serialization = _cryptography()
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    length_of_comment = COMMENT_BYTES if _is_signed(data) else 0
    unsigned = data[: len(data) - length_of_comment]
    if unsigned[-_END_OF_ARCHIVE_BYTES:][:4] != _END_OF_ARCHIVE or unsigned[-2:] != length_of_comment.to_bytes(
        2, "little"
    ):
        raise ArtifactError(f"{source} does not end as a policy file does. Convert the policy again, and sign that.")
    signed = unsigned[:-2] + COMMENT_BYTES.to_bytes(2, "little")
    return signed + MAGIC + bytes(public) + bytes(private.sign(signed))


def check(data: bytes, trust: Sequence[str | Path], source: str = "policy") -> None:
    """See that the file is signed by one of the keys in `trust`, and unaltered. Nothing in it is parsed.

    Args:
      data: the bytes of the file.
      trust: files of public keys; each may hold several.
      source: what error messages call the file.

    Raises:
      KeyFileError: a file in `trust` holds no public Ed25519 key.
      UnsignedError: there is no signature at the file's end.
      SignatureError: it is of another key, or the file is not what was signed.
    """
    exceptions, _, serialization = _cryptography()
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    trusted = {key.public_bytes(*raw): key for path in trust for key in _public_keys(Path(path))}
    if not _is_signed(data):
        raise UnsignedError(
            f"{source} is not signed, or was cut or extended. Sign it with `tfqrl sign`, or copy it again."
        )
    signed, comment = data[:-COMMENT_BYTES], data[-COMMENT_BYTES:]
    public, signature = comment[len(MAGIC) : -SIGNATURE_BYTES], comment[-SIGNATURE_BYTES:]
    if public not in trusted:
        raise SignatureError(
            f"{source} is signed by the key {public.hex()[:16]}, which is none of the {len(trusted)} trusted ones. "
            "Have it signed by one of those, or trust its key with --trust if you know whose it is."
        )
    try:
        trusted[public].verify(signature, signed)
    except exceptions.InvalidSignature:
        raise SignatureError(
            f"{source} is not what was signed: it was altered or damaged. Do not use it; copy it again from its maker."
        ) from None


def public_pem(paths: Sequence[str | Path]) -> bytes:
    """The public keys of several files as the contents of one, and nothing else that is in them.

    Raises:
      KeyFileError: a file holds no public Ed25519 key.
    """
    _, _, serialization = _cryptography()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return b"".join(key.public_bytes(*form) for path in paths for key in _public_keys(Path(path)))


def _is_signed(data: bytes) -> bool:
    return len(data) > COMMENT_BYTES and data[-COMMENT_BYTES:].startswith(MAGIC)


def _private_key(path: Path) -> Any:
    _, ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(_read_key(path), password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(
            f"{path} holds no private key without passphrase in PEM. Make one with `tfqrl sign-key {path.stem}`."
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"The key in {path} is not an Ed25519 key. Make one with `tfqrl sign-key`.")
    return key


def _public_keys(path: Path) -> list[Any]:
    _, ed25519, serialization = _cryptography()
    blocks = _PUBLIC_KEY.findall(_read_key(path))
    try:
        keys = [serialization.load_pem_public_key(block) for block in blocks]
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"A public key in {path} cannot be read: {error}.") from error
    if not keys or not all(isinstance(key, ed25519.Ed25519PublicKey) for key in keys):
        raise KeyFileError(f"{path} must hold public Ed25519 keys in PEM: the .pub file that `tfqrl sign-key` writes.")
    return keys


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"Cannot read the key {path}: {error.strerror or error}.") from error


def _cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UserError("Signatures need the package cryptography: `pip install 'tfqrl[sign]'`.") from error
    return exceptions, ed25519, serialization
