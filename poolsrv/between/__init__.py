"""What the processes of a server share, and say to one another and to commands."""
