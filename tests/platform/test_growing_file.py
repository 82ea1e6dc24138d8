"""A file that grows is read once, whole line by whole line, and from its beginning where it is another one."""

from csasn.platform.growing_file import GrowingFile


def test_each_line_is_read_once_and_whole(tmp_path):
    path = tmp_path / "lines"
    file = GrowingFile(path)
    assert file.read() == ([], False)
    path.write_bytes(b"one\ntwo\nthr")
    assert file.read() == ([b"one", b"two"], False)
    assert file.read() == ([], False)
    with path.open("ab") as more:
        more.write(b"ee\nfour\n")
    assert file.read() == ([b"three", b"four"], False)


def test_another_file_of_that_name_is_read_from_its_beginning_also_where_it_is_longer(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"run 1\n")
    file = GrowingFile(path)
    file.read()
    path.write_bytes(b"run 2, which is longer\nand has more\n")
    assert file.read() == ([b"run 2, which is longer", b"and has more"], True)
    path.write_bytes(b"3\n")
    assert file.read() == ([b"3"], True)
    path.unlink()
    assert file.read() == ([], True)
    assert file.read() == ([], False)


def test_from_its_end_what_is_there_is_passed_over(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"old\n")
    file = GrowingFile(path, from_end=True)
    assert file.read() == ([], False)
    with path.open("ab") as more:
        more.write(b"new\n")
    assert file.read() == ([b"new"], False)
