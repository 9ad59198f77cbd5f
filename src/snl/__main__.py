"""`python -m snl` is the command `snl`."""

from snl.cli.main import main

raise SystemExit(main())
