"""The stores, and `open_store`, which picks one by URL. Each is imported only when it is asked for."""
