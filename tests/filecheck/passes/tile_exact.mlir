// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m sizes=4 edges=exact}' | filecheck %s
// Full tiles, and one of what remains, of which the size is known.

func.func @gemm(%a: memref<11x7xf32>, %b: memref<7x5xf32>, %c: memref<11x5xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<11x7xf32>, memref<7x5xf32>, memref<11x5xf32>
  func.return
}
// CHECK: scf.for
// CHECK: gemmir.gemm {{.*}} memref<4x5xf32, strided<[5, 1], offset: ?>>
// CHECK: scf.for
// CHECK: gemmir.gemm {{.*}} memref<3x5xf32, strided<[5, 1], offset: ?>>
// CHECK-NOT: gemmir.gemm
