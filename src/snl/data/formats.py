"""Image formats that are not read, by the extension of a file's name."""

from __future__ import annotations

from pathlib import PurePath

_UNSUPPORTED = {
    "JPEG 2000": ".jp2 .j2k .jpf .jpx .jpm .j2c",
    "HEIF": ".heic .heif .hif",
    "AVIF": ".avif .avifs",
    "JPEG XL": ".jxl",
    "JPEG XR": ".jxr .wdp .hdp",
    "GIF": ".gif",
    "camera raw": ".raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw .3fr .iiq .x3f",
    "NumPy": ".npy .npz",
    "MATLAB": ".mat",
    "Photoshop": ".psd .psb",
    "DICOM": ".dcm .dicom",
    "OpenEXR": ".exr",
    "Radiance": ".hdr",
    "FITS": ".fits .fit .fts",
    "HDF5": ".h5 .hdf5",
    "SVG": ".svg",
    "PCX": ".pcx",
    "TGA": ".tga",
    "PFM": ".pfm .pam .pbm",
    "icon": ".ico .icns",
    "Silicon Graphics": ".sgi",
    "JPEG": ".jfif .jpe .jfi",
    "DIB": ".dib",
}
_BY_EXTENSION = {
    extension: name for name, listed in _UNSUPPORTED.items() for extension in listed.split()
}


def unsupported_format(path: PurePath | str) -> str | None:
    """Return the name of the image format of a file that is not read, or None.

    >>> unsupported_format("a.HEIC"), unsupported_format("a.png")
    ('HEIF', None)
    """
    return _BY_EXTENSION.get(PurePath(path).suffix.lower())
