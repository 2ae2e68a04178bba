"""The operators' drill: what `resumable_sync.wsgi.operations` shows, as it stands there, with real servers."""
