"""Videos and live sources: every frame of a file, only the newest of what cannot wait."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from snl.cli.main import main
from snl.data import video
from snl.data.video import Frame, frames, is_live, is_video
from snl.errors import DataError
from tests.trees import HEIGHT, WIDTH, draw

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'snl-ad[video]'")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames, each of one grey, 16 brighter than the one before; 10 a second."""
    path = tmp_path_factory.mktemp("film") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            grey = np.full((48, 64, 3), 32 + 16 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_file_gives_every_frame_in_order(film: Path) -> None:
    found = list(frames(str(film)))
    assert [frame.number for frame in found] == list(range(12))
    assert [round(frame.seconds, 3) for frame in found] == [n / 10 for n in range(12)]
    for number, frame in enumerate(found):
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert abs(float(frame.image.mean()) - (32 + 16 * number)) < 4


@pytest.mark.parametrize(
    ("source", "a_video", "live"),
    [
        ("parts.mp4", True, False),
        ("C:\\films\\parts.MKV", True, False),
        ("rtsp://10.0.0.5/stream", True, True),
        ("http://camera/video.mjpg", True, True),
        ("camera:0", True, True),
        ("camera:front", False, False),
        ("image.png", False, False),
        ("C:\\images", False, False),
        ("folder", False, False),
    ],
)
def test_what_is_a_video(source: str, a_video: bool, live: bool) -> None:
    assert is_video(source) is a_video
    assert is_live(source) is live


def test_a_live_source_drops_frames_and_keeps_none_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = 200

    def camera(source: str):  # type: ignore[no-untyped-def]
        for number in range(made):
            time.sleep(0.005)
            yield Frame(np.full((2, 2, 3), number % 256, np.uint8), number, number * 0.005)

    monkeypatch.setattr(video, "_decoded", camera)
    began, seen = time.perf_counter(), []
    for frame in frames("camera:0"):
        age = time.perf_counter() - began - frame.seconds
        seen.append(frame.number)
        time.sleep(0.05)  # ten times slower than the camera
        assert age < 1.0
    assert seen == sorted(set(seen)) and len(seen) < made / 2
    assert seen[-1] >= made - 1  # the last one is not lost


def test_an_error_of_a_live_source_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def camera(source: str):  # type: ignore[no-untyped-def]
        yield Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0)
        raise DataError("camera:0: unplugged")

    monkeypatch.setattr(video, "_decoded", camera)
    with pytest.raises(DataError, match="unplugged"):
        for _ in frames("camera:0"):
            time.sleep(0.01)


@pytest.mark.parametrize("content", [None, b"", b"no film at all", b"\x00" * 5000])
def test_bad_files_are_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4") as caught:
        list(frames(str(path)))
    assert "\n" not in str(caught.value)


def test_nobody_answers(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle), "rtsp://127.0.0.1:9/none"]) == 2
    told = capsys.readouterr().err
    assert "rtsp://127.0.0.1:9/none" in told and "Traceback" not in told


def test_inspect_writes_a_line_a_frame(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "parts.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for seed in range(5):
            frame = av.VideoFrame.from_ndarray(draw(seed)[0], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    out, lines = tmp_path / "out", tmp_path / "lines.jsonl"
    arguments = ["inspect", str(bundle), str(path), "--json", str(lines), "--out", str(out)]
    assert main(arguments) == 0
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(5))
    assert {record["dropped"] for record in records} == {0}
    assert len(list(out.glob("parts-*.png"))) == 5
    assert main(["inspect", str(bundle), str(path), str(path)]) == 2
    assert main(["inspect", str(bundle), str(path), "--coco", str(tmp_path / "c.json")]) == 2
