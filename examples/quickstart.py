"""Compile one layer, call it on NumPy arrays, and see what was decided."""

import numpy as np

import gemmir

gemm = gemmir.Gemm(m=128, n=3072, k=768, epilogue="bias+gelu")
kernel = gemmir.compile(gemm)
a, b = np.ones((128, 768), np.float32), np.ones((768, 3072), np.float32)
c = kernel(a, b, np.zeros(3072, np.float32))
print(c[0, 0], "should be 768.0")
print(gemmir.lower(gemm).explain())
