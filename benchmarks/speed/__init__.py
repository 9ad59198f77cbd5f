"""Speed and memory of snl and of anomalib, measured by processes that take turns."""
