"""One run on many hosts: cases go to hosts in groups that share builds, lines come back."""
