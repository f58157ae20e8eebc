"""A wheel of tfqrl as it is installed here, to install on a device.

pip cannot make one without the sources, which are not there after `pip install tfqrl`; nor need it: a wheel is a ZIP
archive of the packages and of the metadata that pip keeps of them. This one is made alike from an installation and from
a checkout installed with `pip install --editable`, without a network, and equal packages give equal bytes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edge.errors import UserError

PACKAGES = ("converters", "edge", "tfqrl")
# By their names in a wheel. What is found first in a checkout is its .egg-info, which calls the metadata PKG-INFO;
# setuptools has put the licence in the one place and in the other.
METADATA = {
    "METADATA": ("METADATA", "PKG-INFO"),
    "entry_points.txt": ("entry_points.txt",),
    "LICENSE": ("LICENSE", "licenses/LICENSE"),
}
TAG = "py3-none-any"


@dataclass(frozen=True)
class Wheel:
    """A wheel in memory.

    Attributes:
      name: its file name, which pip insists on.
      version: of tfqrl.
      extras: the names of its extras.
      data: its bytes.
    """

    name: str
    version: str
    extras: tuple[str, ...]
    data: bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes: a developer's changes do not change the version."""
        return hashlib.sha256(self.data).hexdigest()


def build() -> Wheel:
    """The wheel of the tfqrl that is running.

    Raises:
      UserError: it runs from files that were never installed, so there is no metadata.
    """
    try:
        distribution = importlib.metadata.distribution("tfqrl")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "tfqrl runs from sources that are not installed. Run `pip install --editable .` there."
        ) from error
    version = distribution.version
    info = f"tfqrl-{version}.dist-info"
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        root = _folder(package)
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".yaml") or path.name == "py.typed":
                files[f"{package}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    for name, places in METADATA.items():
        if text := next(filter(None, map(distribution.read_text, places)), None):
            files[f"{info}/{name}"] = text.encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tfqrl\nRoot-Is-Purelib: true\nTag: {TAG}\n".encode()
    extras = tuple(distribution.metadata.get_all("Provides-Extra") or ())
    return Wheel(f"tfqrl-{version}-{TAG}.whl", version, extras, archive(files, info))


def archive(files: dict[str, bytes], info: str) -> bytes:
    """The bytes of a wheel with these files; `info` is the name of its .dist-info folder, to which RECORD is added."""
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((f"{info}/RECORD", "", ""))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as wheel:
        for name, data in {**files, f"{info}/RECORD": record.getvalue().encode()}.items():
            # A fixed date and mode, so that equal packages are equal files.
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            wheel.writestr(member, data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
