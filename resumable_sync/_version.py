# To release: set the version here and the date in CHANGELOG.md; run .ci/run and `pytest -m heavy`; tag vX.Y.Z;
# build with `python -m build`, look with `twine check dist/*`, upload; then set the next .dev0.
__version__ = "0.2.0.dev0"
