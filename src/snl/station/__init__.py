"""The review station: the web page of the service."""
