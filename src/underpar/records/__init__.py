"""The record folder and the report page. Imports no torch."""
