"""What a measured process runs: the library's own programs and the floors. Each is one function of a Job."""
