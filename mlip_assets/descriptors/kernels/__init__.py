"""The compiled kernels of SOAP: neighbour lists, harmonics, expansion and products."""
