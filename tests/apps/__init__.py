"""WSGI applications that the tests serve."""
