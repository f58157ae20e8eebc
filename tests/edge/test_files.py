import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import OutputError
from edge.files import check_writable, write_atomically


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
    check_writable(tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []
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
