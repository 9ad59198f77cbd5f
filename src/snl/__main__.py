"""Run the command `snl`, also as `python -m snl`."""

from snl.cli.safety import guard, prepare


def main() -> int:
    """Run the command line of this process and return its exit status."""
    prepare()

    def run() -> int:
        from snl.cli.main import main  # inside the guard: importing it may fail too

        return main()

    return guard(run)


if __name__ == "__main__":
    raise SystemExit(main())
