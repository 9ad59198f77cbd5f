"""Videos and live sources: every frame of a file, the newest frame of a live source."""

from __future__ import annotations

import json
import struct
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

    def camera(source: str, settings: object):  # type: ignore[no-untyped-def]
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
    def camera(source: str, settings: object):  # type: ignore[no-untyped-def]
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


# --- orientation -------------------------------------------------------------------------------

MATRICES = {  # a, b, c, d; x' = a x + c y, y' = b x + d y
    "identity": ((1, 0, 0, 1), lambda frame: frame),
    "clockwise": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "half": ((-1, 0, 0, -1), lambda frame: frame[::-1, ::-1]),
    "counterclockwise": ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda frame: frame[::-1]),
    "transposed": ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
    "transversed": ((0, -1, -1, 0), lambda frame: frame[::-1, ::-1].transpose(1, 0, 2)),
}


def with_matrix(content: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Return an MP4 with another display matrix in its track header, version 0."""
    a, b, c, d = (value * 65536 for value in matrix)
    place = content.index(b"tkhd") + 4 + 40
    numbers = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return content[:place] + numbers + content[place + 36 :]


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_by_the_display_matrix(name: str, tmp_path: Path) -> None:
    matrix, expected = MATRICES[name]
    path = write_video(tmp_path / "a.mp4", "mpeg4", 3)
    stored = [frame.image for frame in frames(str(path))]
    path.write_bytes(with_matrix(path.read_bytes(), matrix))
    turned = [frame.image for frame in frames(str(path))]
    assert len(turned) == 3 and turned[0].flags.c_contiguous
    for frame, original in zip(turned, stored, strict=True):
        np.testing.assert_array_equal(frame, expected(original))


def test_a_turn_by_another_angle_is_ignored() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    assert video.upright(frame, (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)) is frame


# --- truncated and damaged files ---------------------------------------------------------------

CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    "last.mp4": ("mpeg4", {}),
    "first.mp4": ("mpeg4", {"movflags": "faststart"}),
    "fragments.mp4": ("mpeg4", {"movflags": "frag_keyframe+empty_moov"}),
    "a.mov": ("mjpeg", {}),
    "a.mkv": ("mpeg4", {}),
    "live.mkv": ("mpeg4", {"live": "1"}),
    "a.webm": ("libvpx", {}),
    "a.avi": ("mpeg4", {}),
    "jpegs.avi": ("mjpeg", {}),
    "a.mpg": ("mpeg2video", {}),
    "a.ts": ("mpeg2video", {}),
    "a.m2ts.ts": ("mpeg2video", {"mpegts_m2ts_mode": "1"}),
}
COUNT = 30


def write_video(path: Path, codec: str, count: int, options: dict[str, str] | None = None) -> Path:
    """Write frames that all differ, from a fixed seed."""
    base = np.random.default_rng(3).integers(0, 200, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w", options=options or {}) as container:
        try:
            stream = container.add_stream(codec, rate=25)
        except Exception:
            pytest.skip(f"this PyAV cannot write {codec}")
        stream.width, stream.height = base.shape[1], base.shape[0]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(count):
            picture = np.roll(base, 3 * number, 1)
            picture[:8] = 8 * number % 256
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], str]:
    images: list[np.ndarray] = []
    try:
        images.extend(frame.image for frame in frames(str(path)))
    except DataError as error:
        return images, str(error)
    return images, ""


@pytest.mark.parametrize("name", CONTAINERS)
def test_truncated_files_end_with_an_error_after_the_good_frames(name: str, tmp_path: Path) -> None:
    codec, options = CONTAINERS[name]
    path = write_video(tmp_path / name, codec, COUNT, options)
    whole, error = read_video(path)
    assert (len(whole), error) == (COUNT, "")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for share in [*np.linspace(0.03, 0.97, 12), *rng.random(4)]:
        size = int(share * len(content))
        size += size % 188 == 0 or size % 192 == 0  # a cut between two packets leaves no trace
        path.write_bytes(content[:size])
        images, error = read_video(path)
        if error:
            assert error.startswith(str(path)) and "\n" not in error
        else:  # only what follows the last frame is missing
            assert len(images) == COUNT
        for image in images:  # no damaged frame
            assert min(np.abs(image.astype(int) - frame).mean() for frame in whole) < 0.01


def test_the_error_of_a_truncated_file_says_where_it_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "mpeg4", COUNT, {"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    images, error = read_video(path)
    assert 0 < len(images) < COUNT
    assert f"truncated: the video ends after frame {len(images) - 1} of about {COUNT}" in error
    recorded = write_video(tmp_path / "b.mp4", "mpeg4", COUNT)
    recorded.write_bytes(recorded.read_bytes()[:-800])
    assert "index of frames is missing" in read_video(recorded)[1]


def test_complete_videos_are_not_called_truncated(tmp_path: Path) -> None:
    """Variable frame rate, B-frames, an edit list, sound that is longer than the video."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        try:
            stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "7"})
        except Exception:
            pytest.skip("this PyAV cannot write H.264")
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        times = np.cumsum(np.random.default_rng(0).integers(1, 9, 25)) + 40
        for number, time in enumerate(times.tolist()):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 9 * number, np.uint8), format="rgb24"
            )
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number in range(100):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 8000, 1024 * number
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    images, error = read_video(path)
    assert (len(images), error) == (25, "")
    cut_start = tmp_path / "joined.ts"  # a recording that begins in the middle of a group
    whole = write_video(tmp_path / "whole.ts", "mpeg2video", COUNT).read_bytes()
    packets = len(whole) // 188
    cut_start.write_bytes(whole[: 188 * 2] + whole[188 * (packets // 3) :])
    images, error = read_video(cut_start)
    assert images and "truncated" not in error


def test_inspect_keeps_the_results_of_a_truncated_video(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mp4", "mpeg4", COUNT, {"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(0.8 * path.stat().st_size)])
    lines = tmp_path / "lines.jsonl"
    assert main(["inspect", str(bundle), str(path), "--json", str(lines)]) == 2
    assert "truncated" in capsys.readouterr().err
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(len(records))) and records


def test_a_folder_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "d.ts").mkdir()
    assert not is_video(str(tmp_path / "d.ts"))
