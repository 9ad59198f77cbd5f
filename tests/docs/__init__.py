"""Every command and code block of the documentation is run, or at least parsed."""
