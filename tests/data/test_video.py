"""Videos and live sources: every frame of a file, the newest frame of a live source."""

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
def grey_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of uniform grey, each 16 brighter than the previous one; 10 per second."""
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            grey = np.full((48, 64, 3), 32 + 16 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_file_gives_every_frame_in_order(grey_video: Path) -> None:
    result = list(frames(str(grey_video)))
    assert [frame.number for frame in result] == list(range(12))
    assert [round(frame.seconds, 3) for frame in result] == [n / 10 for n in range(12)]
    for number, frame in enumerate(result):
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert abs(float(frame.image.mean()) - (32 + 16 * number)) < 4


@pytest.mark.parametrize(
    ("source", "video", "live"),
    [
        ("parts.mp4", True, False),
        ("C:\\videos\\parts.MKV", True, False),
        ("rtsp://10.0.0.5/stream", True, True),
        ("http://camera/video.mjpg", True, True),
        ("camera:0", True, True),
        ("camera:front", False, False),
        ("image.png", False, False),
        ("C:\\images", False, False),
        ("folder", False, False),
    ],
)
def test_videos_and_live_sources_are_recognised(source: str, video: bool, live: bool) -> None:
    assert is_video(source) is video
    assert is_live(source) is live


def test_a_live_source_drops_frames_and_queues_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    total = 200

    def camera(source: str):  # type: ignore[no-untyped-def]
        for number in range(total):
            time.sleep(0.005)
            yield Frame(np.full((2, 2, 3), number % 256, np.uint8), number, number * 0.005)

    monkeypatch.setattr(video, "_decode", camera)
    start, numbers = time.perf_counter(), []
    for frame in frames("camera:0"):
        age = time.perf_counter() - start - frame.seconds
        numbers.append(frame.number)
        time.sleep(0.05)  # ten times slower than the camera
        assert age < 1.0
    assert numbers == sorted(set(numbers)) and len(numbers) < total / 2
    assert numbers[-1] >= total - 1  # the last frame is not lost


def test_an_error_of_a_live_source_is_raised_in_the_consumer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def camera(source: str):  # type: ignore[no-untyped-def]
        yield Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0)
        raise DataError("camera:0: unplugged")

    monkeypatch.setattr(video, "_decode", camera)
    with pytest.raises(DataError, match="unplugged"):
        for _ in frames("camera:0"):
            time.sleep(0.01)


@pytest.mark.parametrize("content", [None, b"", b"not a video", b"\x00" * 5000])
def test_bad_files_give_an_error_of_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4") as caught:
        list(frames(str(path)))
    assert "\n" not in str(caught.value)


def test_an_unreachable_stream_is_an_error(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle), "rtsp://127.0.0.1:9/none"]) == 2
    message = capsys.readouterr().err
    assert "rtsp://127.0.0.1:9/none" in message and "Traceback" not in message


def test_inspect_writes_one_line_per_frame(bundle: Path, tmp_path: Path) -> None:
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
