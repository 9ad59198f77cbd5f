"""The inspection service: an HTTP server, its store, and a client."""
