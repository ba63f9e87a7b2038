"""Parts of `python -m harness`: each module adds its commands with `register(app)`."""
