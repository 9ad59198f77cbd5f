"""Names of file formats: by the name of a file, and by its first bytes.

Nothing here reads an image, so it is cheap to import.
"""

from __future__ import annotations

from pathlib import Path

_RAW = "camera raw image"
_BY_EXTENSION = {
    "JPEG 2000 image": ".jp2 .j2k .j2c .jpc .jpf .jpx .jpm",
    "HEIC image": ".heic .heif .hif .heics .heifs",
    "AVIF image": ".avif .avifs",
    "JPEG XL image": ".jxl",
    "JPEG XR image": ".jxr .wdp .hdp",
    "JPEG-LS image": ".jls",
    _RAW: (
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .fff .iiq "
        ".rwl .mrw .kdc .dcr .erf .mef .mos .raw"
    ),
    "OpenEXR image": ".exr",
    "Radiance HDR image": ".hdr .pic",
    "SVG drawing": ".svg .svgz",
    "PDF document": ".pdf",
    "PostScript document": ".eps .ps .ai",
    "Photoshop image": ".psd .psb",
    "GIMP image": ".xcf",
    "DICOM image": ".dcm .dicom",
    "NumPy array": ".npy .npz",
    "MATLAB array": ".mat",
    "HDF5 file": ".h5 .hdf5",
    "FITS image": ".fits .fit .fts",
    "icon": ".ico .cur .icns",
    "TGA image": ".tga",
    "DDS image": ".dds",
    "PCX image": ".pcx",
    "SGI image": ".sgi .rgb .bw",
    "QOI image": ".qoi",
    "PAM image": ".pam",
    "microscope image": ".czi .nd2 .lif .svs .ndpi .vsi",
    "Windows metafile": ".wmf .emf",
    "video": ".mp4 .avi .mkv .mov .webm .m4v .mpg .mpeg .wmv .flv .mts .m2ts .3gp",
    "ZIP archive": ".zip",
    "archive": ".tar .gz .tgz .bz2 .xz .7z .rar .zst",
}
_NAMES = {
    extension: name
    for name, extensions in _BY_EXTENSION.items()
    for extension in extensions.split()
}
_RAW_EXTENSIONS = frozenset(_BY_EXTENSION[_RAW].split())

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000 image"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL image"),
    (0, b"\xff\x0a", "JPEG XL image"),
    (0, b"II\xbc\x01", "JPEG XR image"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS image"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR image"),
    (0, b"#?RADIANCE", "Radiance HDR image"),
    (0, b"#?RGBE", "Radiance HDR image"),
    (0, b"%PDF", "PDF document"),
    (0, b"%!PS", "PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript document"),
    (0, b"8BPS", "Photoshop image"),
    (0, b"gimp xcf", "GIMP image"),
    (128, b"DICM", "DICOM image"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"\x89HDF\r\n", "HDF5 file"),
    (0, b"MATLAB 5.0", "MATLAB array"),
    (0, b"SIMPLE  =", "FITS image"),
    (0, b"\0\0\1\0", "icon"),
    (0, b"\0\0\2\0", "icon"),
    (0, b"icns", "icon"),
    (0, b"DDS ", "DDS image"),
    (0, b"\x0a\x05\x01", "PCX image"),
    (0, b"\x01\xda", "SGI image"),
    (0, b"qoif", "QOI image"),
    (0, b"BPG\xfb", "BPG image"),
    (0, b"FLIF", "FLIF image"),
    (0, b"\x8aMNG", "MNG animation"),
    (0, b"\x8bJNG", "JNG image"),
    (0, b"P7\n", "PAM image"),
    (0, b"PF\n", "colour PFM image"),
    (0, b"IIRO", _RAW),
    (0, b"IIRS", _RAW),
    (0, b"MMOR", _RAW),
    (0, b"IIU\0", _RAW),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"FOVb", _RAW),
    (6, b"HEAPCCDR", _RAW),
    (8, b"CR\2", _RAW),
    (0, b"ZISRAWFILE", "microscope image"),
    (0, b"\xd7\xcd\xc6\x9a", "Windows metafile"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (8, b"AVI LIST", "video"),
    (0, b"\0\0\1\xba", "video"),
    (0, b"PK\3\4", "ZIP archive"),
    (0, b"\x1f\x8b", "archive"),
    (0, b"7z\xbc\xaf", "archive"),
    (0, b"Rar!", "archive"),
)
_BRANDS = {
    "HEIC image": (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"),
    "AVIF image": (b"avif", b"avis"),
    "JPEG 2000 image": (b"jp2 ", b"jpx ", b"jpm "),
    _RAW: (b"crx ",),
}
"""Brands of ISO base media files; all others are videos."""
_MARKUP = ((b"<svg", "SVG drawing"), (b"<!doctype html", "web page"), (b"<html", "web page"))

SUPPORTED_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"RIFF", "WEBP"),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
)
"""First bytes of the formats that are read."""


def unsupported_format(path: str | Path) -> str | None:
    """Return the name of the format that a file name's extension stands for, if it is not read.

    >>> unsupported_format("scan.HEIC")
    'HEIC image'
    >>> unsupported_format("scan.png") is None
    True
    """
    return _NAMES.get(Path(path).suffix.lower())


def is_camera_raw(path: str | Path) -> bool:
    """Return True if a file name has the extension of a camera raw format.

    Such files may have the structure of a TIFF whose first page is only a small preview.
    """
    return Path(path).suffix.lower() in _RAW_EXTENSIONS


def format_of_content(start: bytes) -> str | None:
    """Return the name of the format, if it is known and not read, by the first 1024 bytes."""
    if start[4:8] == b"ftyp":
        brands = [start[8:12], *(start[place : place + 4] for place in range(16, 64, 4))]
        for brand in brands:
            for name, known in _BRANDS.items():
                if brand in known:
                    return name
        return "video"
    for offset, signature, name in _SIGNATURES:
        if start[offset : offset + len(signature)] == signature:
            return name
    text = start[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<"):
        for tag, name in _MARKUP:
            if tag in text:
                return name
    if start.startswith(b"version https://git-lfs"):
        return "Git LFS pointer"
    return None


def unsupported_message(name: str, format_name: str) -> str:
    """Return the message about a file of a format that is not read.

    Args:
        name: of the file.
        format_name: as the functions above return it.
    """
    article = "an" if format_name[0] in "AEIOUaeiou" or format_name[:3] in ("HDF", "SVG") else "a"
    if format_name == "Git LFS pointer":
        return f"{name} is a Git LFS pointer, not an image; run git lfs pull"
    if format_name == "video":
        return (
            f"{name} is a video, not an image; give it alone to snl inspect, or save its frames as "
            "images"
        )
    return (
        f"{name} is {article} {format_name}, which is not supported; save it as PNG, TIFF or JPEG"
    )
