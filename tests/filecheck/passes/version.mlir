// RUN: xdsl-opt %s -p 'gemmir-version{loops=m most=8}' | filecheck %s

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

// The public function only decides; passes work on the version, and the other waits.

// CHECK:      func.func @gemm({{.*}}) attributes {gemmir.turn = "done"}
// CHECK-NEXT:   [[MOST:%\w+]] = arith.constant 8 : index
// CHECK-NEXT:   [[SMALL:%\w+]] = arith.cmpi sle, %m, [[MOST]] : index
// CHECK-NEXT:   scf.if [[SMALL]] {
// CHECK-NEXT:     func.call @gemm.m8(%a, %b, %c, %m)
// CHECK-NEXT:   } else {
// CHECK-NEXT:     func.call @gemm.more(%a, %b, %c, %m)
// CHECK:      func.func private @gemm.m8(
// CHECK:        [[BOUND:%\w+]] = arith.minsi %m, {{%\w+}} : index
// CHECK:        memref.reinterpret_cast %a to offset: [0], sizes: {{\[}}[[BOUND]], 5]
// CHECK:        gemmir.gemm
// CHECK:      func.func private @gemm.more({{.*}}) attributes {gemmir.turn = "waiting"}
// CHECK:        [[LEAST:%\w+]] = arith.maxsi %m, {{%\w+}} : index
// CHECK:        memref.reinterpret_cast %a to offset: [0], sizes: {{\[}}[[LEAST]], 5]
// CHECK:        gemmir.gemm
