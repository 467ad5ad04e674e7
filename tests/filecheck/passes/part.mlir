// RUN: xdsl-opt %s -p 'gemmir-part{loop=n at=8}' | filecheck %s

func.func @gemm(%a: memref<4x5xf32>, %b: memref<5x10xf32>, %c: memref<4x10xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<4x5xf32>, memref<5x10xf32>, memref<4x10xf32>
  func.return
}

// The function calls both parts; passes work on the first, and the other waits.

// CHECK:      func.func @gemm({{.*}}) attributes {gemmir.turn = "done"}
// CHECK-NEXT:   func.call @gemm.n8(%a, %b, %c)
// CHECK-NEXT:   func.call @gemm.n8.rest(%a, %b, %c)
// CHECK-NEXT:   func.return
// CHECK:      func.func private @gemm.n8(
// CHECK-NEXT:   [[B:%\w+]] = memref.subview %b[0, 0] [5, 8] [1, 1]
// CHECK-NEXT:   [[C:%\w+]] = memref.subview %c[0, 0] [4, 8] [1, 1]
// CHECK-NEXT:   gemmir.gemm %a, [[B]], [[C]]
// CHECK:      func.func private @gemm.n8.rest({{.*}}) attributes {gemmir.turn = "waiting"}
// CHECK-NEXT:   [[B2:%\w+]] = memref.subview %b[0, 8] [5, 2] [1, 1]
// CHECK-NEXT:   [[C2:%\w+]] = memref.subview %c[0, 8] [4, 2] [1, 1]
// CHECK-NEXT:   gemmir.gemm %a, [[B2]], [[C2]]
