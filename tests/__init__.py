"""Tests; a package, so that they share the harness by its full name."""
