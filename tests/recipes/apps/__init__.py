"""Application code, as the README could show it. It finds its store and its broker in the environment."""
