"""Run the command `snl` as `python -m snl`."""

from snl.cli.main import main

raise SystemExit(main())
