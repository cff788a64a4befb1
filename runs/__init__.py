"""The run directory: what training leaves behind and everything later reads. Layout in CONTRIBUTING.md."""

from runs.directory import SCHEMA, Clusters, Run, create, open_run, read_csv, write_csv

__all__ = ["SCHEMA", "Clusters", "Run", "create", "open_run", "read_csv", "write_csv"]
