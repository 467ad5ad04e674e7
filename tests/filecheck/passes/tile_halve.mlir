// RUN: xdsl-opt %s -p 'gemmir-tile{loops=n sizes=12 edges=halve least=4}' | filecheck %s
// Full tiles, halves of them down to 4 columns, and what is left of these.

func.func @gemm(%a: memref<5x7xf32>, %b: memref<7x35xf32>, %c: memref<5x35xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<5x7xf32>, memref<7x35xf32>, memref<5x35xf32>
  func.return
}
// CHECK: scf.for %{{.*}} = %{{.*}} to %{{.*}} step
// CHECK: gemmir.gemm {{.*}} memref<5x12xf32, strided<[35, 1], offset: ?>>
// CHECK: scf.for
// CHECK: gemmir.gemm {{.*}} memref<5x8xf32, strided<[35, 1], offset: ?>>
// CHECK: scf.for
// CHECK: gemmir.gemm {{.*}} memref<5x3xf32, strided<[35, 1], offset: ?>>
// CHECK-NOT: gemmir.gemm
