// RUN: xdsl-opt %s -p 'gemmir-version{loops=m sizes=1}' | filecheck %s

func.func @gemm(
    %a: memref<?x5xf32> {gemmir.name = "a", gemmir.access = "read", gemmir.sizes = ["m"]},
    %b: memref<5x8xf32> {gemmir.name = "b", gemmir.access = "read"},
    %c: memref<?x8xf32> {gemmir.name = "c", gemmir.access = "write", gemmir.sizes = ["m"]},
    %m: index {gemmir.name = "m", gemmir.access = "size"}) {
  %a_1 = memref.reinterpret_cast %a to offset: [0], sizes: [%m, 5], strides: [5, 1]
    : memref<?x5xf32> to memref<?x5xf32>
  %c_1 = memref.reinterpret_cast %c to offset: [0], sizes: [%m, 8], strides: [8, 1]
    : memref<?x8xf32> to memref<?x8xf32>
  gemmir.gemm %a_1, %b, %c_1 alpha 1.0 : f64 beta 0.0 : f64
    : memref<?x5xf32>, memref<5x8xf32>, memref<?x8xf32>
  func.return
}

// An exact size is static in all types.

// CHECK: arith.cmpi eq, %m
// CHECK: func.func private @gemm.m1(
// CHECK:   memref.reinterpret_cast %a to offset: [0], sizes: [1, 5], strides: [5, 1] : memref<?x5xf32> to memref<1x5xf32>
// CHECK:   gemmir.gemm {{.*}} memref<1x5xf32>, memref<5x8xf32>, memref<1x8xf32>
