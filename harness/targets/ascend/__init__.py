"""The Ascend targets: Ascend 310 and 310P3 through atc, npu-smi and ais_bench."""
