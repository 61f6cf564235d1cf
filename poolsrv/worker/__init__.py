"""What runs in the template and in its workers: everything that meets user code."""
