"""`python -m snl` is the command `snl`."""

from snl.cli import main

raise SystemExit(main())
