"""The accelerator part of the benchmarks: `python -m benchmarks.gpu <command> --data .device-inputs/beauty`."""
