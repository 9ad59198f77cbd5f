"""The web page of the service, in a real browser."""
