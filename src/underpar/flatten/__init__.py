"""One self-contained script out of the package: read, follow, merge, trim and wrap source text; nothing here runs it."""
