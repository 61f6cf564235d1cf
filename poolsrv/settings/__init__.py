"""The options: what there are, what values they take, where the values come from."""
