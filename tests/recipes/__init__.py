"""The library beside other packages, for real: queues, frameworks, files, agents. `apps` is what a reader would write."""
