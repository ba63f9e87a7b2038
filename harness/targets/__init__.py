"""Targets: where compiled models run. The protocol, the device worker, leases and each target."""
