"""Hostile tests: files, commands and environments that break programs, with the outcome expected.

Every attempt states its expected outcome before it runs. The oracle accepts three outcomes only:
the right result; one clear line; one clear line and the rest done. It also checks that no input
file changed, that nothing is left behind, and that no traceback, raw warning or control character
reached the terminal.

    python -m tests.hostile                     all attempts
    python -m tests.hostile --kind 4 --jobs 2   one kind
    python -m tests.hostile --only some-id -v   one attempt, with its output

The kinds are those of the project's robustness issue: 1 images, 2 folders and masks, 3 manifests,
4 outputs that overwrite inputs, 5 lost work, 6 lost updates and sharing, 7 silent corruption,
8 hangs and tracebacks, 9 feedback, 10 memory, 11 advice.
"""
