"""The demo: a page on which a streamed answer survives dropped connections, reloads and restarts of the server."""
