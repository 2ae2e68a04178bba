"""The library beside other packages: queues, frameworks, files, agents. `apps` is what a reader would write."""
