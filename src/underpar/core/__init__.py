"""The foundations: configuration, recipes, roles, units, errors, the clock. Imports no torch."""
