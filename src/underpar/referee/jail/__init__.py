"""Where programs of others run: namespaces, limits, a watch, and a statement of the level that was reached."""
