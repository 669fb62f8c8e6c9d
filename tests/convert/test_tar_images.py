"""Images inside of tars, as if they were unpacked where the tars lie."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from shapes import Set, llava, picture

from theworld.commands.verify import command as verify


def tar(path: Path, members: dict[str, bytes], cut: int | None = None, mode: str = "w") -> None:
    """A tar with these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(stream.getvalue()[:cut])


def entries(*names: str) -> list[dict[str, object]]:
    return [{"image": name, "conversations": llava("?", f"{name}.")} for name in names]


def test_their_images_are_those_of_the_folder_they_lie_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["2d/image/a.jpg", "2d/image/b.png", "3d/c.jpg", "top.jpg", "2d/image/a.jpg"]
    made = Set(tmp_path, entries(*names))
    pictures = [picture(0), picture(1, "PNG"), picture(2), picture(3)]
    inside = {"image/a.jpg": pictures[0], "./image/b.png": pictures[1], "image/x.txt": b"x"}
    tar(made.images / "2d" / "image.tar", inside)
    tar(made.images / "3d" / "some.tar", {"c.jpg": pictures[2]})
    tar(made.images / "all.tar", {"top.jpg": pictures[3], "2d/image/a.jpg": b"another"})
    report = made.convert(workers=2)
    assert (report.written, +report.left_out) == (5, {})
    assert [sample["image"] for sample in made.samples()] == [*pictures, pictures[0]]
    assert made.samples()[0]["id"] == "2d/image/a"
    assert made.convert().written == 0
    assert verify([str(made.out), "--source"]) == 0
    assert "source: 5 the same, 0 replaced, 0 no longer there" in capsys.readouterr().out


def test_a_file_beside_a_tar_counts_before_what_is_in_it(tmp_path: Path) -> None:
    made = Set(tmp_path, entries("a.jpg"), "a.jpg")
    tar(made.images / "some.tar", {"a.jpg": picture(9)})
    assert made.convert().images == 2
    assert made.samples()[0]["image"] == (made.images / "a.jpg").read_bytes()


def test_what_a_tar_may_not_give(tmp_path: Path) -> None:
    """Names that lead out, links, hidden tars, packed ones: said where it is a loss."""
    made = Set(tmp_path, entries("a.jpg", "out.jpg", "link.jpg", "hidden.jpg", "packed.jpg"), "unused.jpg")
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.jpg")
        archive.addfile(link)
        for name in ("../out.jpg", "/out.jpg", "x//out.jpg", "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(picture())
            archive.addfile(info, io.BytesIO(picture()))
    (made.images / "some.tar").write_bytes(stream.getvalue())
    tar(made.images / ".hidden.tar", {"hidden.jpg": picture()})
    tar(made.images / "packed.tar.gz", {"packed.jpg": picture()}, mode="w:gz")
    report = made.convert()
    assert made.ids() == ["a"]
    assert report.images == 2, "a.jpg of the tar, and the one in the folder"
    assert report.left_out["image not there yet"] == 4
    assert report.unreadable == 1


def test_a_tar_that_grows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half a download: what is there in whole is taken, the rest when it has come."""
    made = Set(tmp_path, entries("a.jpg", "b.jpg", "c.jpg"))
    whole = {name: picture(number) for number, name in enumerate(["a.jpg", "b.jpg", "c.jpg"])}
    tar(made.images / "some.tar", whole, cut=512 + 1024 + 512 + 100)  # inside of the second picture
    report = made.convert()
    assert (report.written, report.unreadable) == (1, 1)
    assert +report.left_out == {"image changed while converting": 1, "image not there yet": 1}
    assert "some.tar: unexpected end of data; what is behind is not there" in caplog.text
    tar(made.images / "some.tar", whole)
    assert made.convert().written == 2
    assert [sample["image"] for sample in made.samples()] == list(whole.values())


def test_a_damaged_picture_in_a_tar_is_rejected_until_the_tar_is_another(tmp_path: Path) -> None:
    made = Set(tmp_path, entries("a.jpg", "b.jpg"))
    tar(made.images / "some.tar", {"a.jpg": picture()[:300], "b.jpg": picture()})
    os.utime(made.images / "some.tar", ns=(10**18, 10**18))
    assert made.convert().written == 1
    assert made.rejected() == [("a", "image is cut short")]
    assert made.convert().written == 0
    tar(made.images / "some.tar", {"a.jpg": picture(), "b.jpg": picture()})
    assert (made.convert().written, made.rejected()) == (1, [])
