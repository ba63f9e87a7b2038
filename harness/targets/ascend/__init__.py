"""The Ascend targets: chips of `chips.py` through atc, npu-smi and ais_bench."""
