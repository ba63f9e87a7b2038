"""Networks of the libraries, and how upstream's checkpoint files name and nest their weights."""
