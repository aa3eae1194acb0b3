"""oneDNN: Intel's open-source CPU kernels, through its C API."""
