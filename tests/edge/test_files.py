import io
import resource
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from edge.errors import OutputError
from edge.files import check_writable, read_member, write_atomically


def test_a_file_is_made_with_the_folders_that_it_needs(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"data")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"data"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]
    # As readable as any file that a program makes, not only by its owner.
    (tmp_path / "plain").touch()
    assert (tmp_path / "a" / "b" / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already"):
        write_atomically(path, b"new", force=False)
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new", force=True)
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"Cannot write .*/file/below: .*Check that the folder is writable"):
        write_atomically(tmp_path / "file" / "below", b"data")


def test_whether_a_place_can_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    check_writable(tmp_path / "there" / "new" / "newer" / "file")
    # What would be needed is not left behind: the command may yet be refused for another reason.
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="Cannot write"):
        check_writable(tmp_path / "file" / "below")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def limit_file_size() -> None:
        # The kernel then refuses to let a file grow past 1000 bytes: what a full disk looks like from here.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    program = "import sys; from edge.files import write_atomically; write_atomically(sys.argv[1], bytes(100_000))"
    result = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)],
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OutputError: Cannot write" in result.stderr
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_member_that_is_larger_than_it_claims_is_not_unpacked(compression: int) -> None:
    n, packed = 64 * 2**20, io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("member", bytes(n))
    # In both headers: before the data, and in the directory at the end.
    data = packed.getvalue().replace(struct.pack("<I", n), struct.pack("<I", 100))
    packed.close()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        tracemalloc.start()
        try:
            with pytest.raises(zipfile.BadZipFile):
                read_member(archive, archive.getinfo("member"))
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_a_member_is_read_whole() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", bytes(range(256)) * 1000)
        archive.writestr("empty", b"")
    with zipfile.ZipFile(packed) as archive:
        assert read_member(archive, archive.getinfo("member")) == bytes(range(256)) * 1000
        assert read_member(archive, archive.getinfo("empty")) == b""
