"""Options of the verbs that work on a service."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_service(verb: argparse.ArgumentParser) -> None:
    """Add --data and --store."""
    verb.add_argument(
        "--data",
        type=Path,
        default=Path("snl-data"),
        metavar="DIR",
        help="folder of the service (default: snl-data)",
    )
    verb.add_argument("--store", metavar="URL", help="database of the service, if not in DIR")
