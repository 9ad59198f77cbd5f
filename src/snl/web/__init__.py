"""What the pages share: style, symbols and scripts."""
