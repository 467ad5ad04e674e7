// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8}' | filecheck %s

func.func @gemm(%a: memref<3x5xf32>, %b: memref<5x32xf32>, %c: memref<3x32xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<3x5xf32>, memref<5x32xf32>, memref<3x32xf32>
  func.return
}

// Fewer rows than vectors across: each vector of B is read right before its products, so that 12 sums,
// 3 elements of A and one vector of B are all that is in registers.

// CHECK-LABEL: @gemm
// CHECK:      [[A:%\w+]] = vector.transfer_read %a{{.*}} : memref<3x5xf32>, vector<3x1xf32>
// CHECK-NEXT: [[B0:%\w+]] = vector.transfer_read %b{{.*}} : memref<5x32xf32>, vector<1x8xf32>
// CHECK-NEXT: gemmir.outerproduct [[A]], [[B0]]
// CHECK-NEXT: [[B1:%\w+]] = vector.transfer_read %b
// CHECK-NEXT: gemmir.outerproduct [[A]], [[B1]]
// CHECK-NEXT: [[B2:%\w+]] = vector.transfer_read %b
// CHECK-NEXT: gemmir.outerproduct [[A]], [[B2]]
// CHECK-NEXT: [[B3:%\w+]] = vector.transfer_read %b
// CHECK-NEXT: gemmir.outerproduct [[A]], [[B3]]
// CHECK-NEXT: scf.yield
