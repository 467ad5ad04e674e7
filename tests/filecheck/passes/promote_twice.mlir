// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=16},gemmir-promote{operand=c to=registers}' | filecheck %s
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=k sizes=16},gemmir-promote{operand=c to=registers}' | filecheck %s --check-prefix ONCE

func.func @gemm(%a: memref<4x32xf32>, %b: memref<32x8xf32>, %s: memref<2x1x4x16xf32, strided<[1, 0, 2, 0]>>, %c: memref<4x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 2.0 : f64 beta 0.0 : f64
    scales(%s : memref<2x1x4x16xf32, strided<[1, 0, 2, 0]>>) depth 16 : i64
    : memref<4x32xf32>, memref<32x8xf32>, memref<4x8xf32>
  func.return
}

// A running sum begins at 0 before the loop; each slice is summed for itself, and added to it with
// the scales of its block, rounded once. Factors of the whole product come at the end.

// CHECK:      %acc = memref.alloca() : memref<4x8xf32, #gemmir.space<registers>>
// CHECK:      gemmir.epilogue outs([[ACC:%\w+]] : {{.*}}) {
// CHECK:        [[ZERO:%\w+]] = arith.constant 0.000000e+00 : f32
// CHECK-NEXT:   gemmir.yield [[ZERO]] : f32
// CHECK:      scf.for %p =
// CHECK:        [[BLOCK:%\w+]] = arith.divui %p
// CHECK:        [[OWN:%\w+]] = memref.subview %s{{\w*}}[[[BLOCK]], 0, 0, 0] [1, 1, 4, 16]
// CHECK:        [[PART:%\w+]] = memref.subview %part
// CHECK-NEXT:   [[SCALE:%\w+]] = memref.subview [[OWN]][0, 0, 0, 0] [1, 1, 4, 8] {{.*}} to memref<4x8xf32, strided<[2, 0], offset: ?>>
// CHECK-NEXT:   gemmir.gemm {{.*}}, {{.*}}, [[PART]] alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 : memref
// CHECK-NEXT:   gemmir.epilogue ins([[PART]], [[SCALE]] : {{.*}}) outs([[ACC]] : {{.*}}) {
// CHECK-NEXT:   ^bb0([[SUM:%\w+]]: f32, [[FACTOR:%\w+]]: f32, [[OLD:%\w+]]: f32):
// CHECK-NEXT:     [[NEW:%\w+]] = math.fma [[SUM]], [[FACTOR]], [[OLD]] : f32
// CHECK-NEXT:     gemmir.yield [[NEW]] : f32
// CHECK:      } {gemmir.dim = "k"}
// CHECK-NEXT: gemmir.epilogue ins([[ACC]] : {{.*}}) outs(%c : {{.*}}) {
// CHECK:        arith.mulf

// A sum of one block is multiplied by its scales when it is written back.

// ONCE:      gemmir.gemm {{.*}} alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 : memref
// ONCE-NEXT: scf.if
// ONCE-NEXT:   gemmir.epilogue ins(%acc_1, {{.*}}) outs(%c : memref<4x8xf32>) {
// ONCE-NEXT:   ^bb0([[SUM:%\w+]]: f32, [[FACTOR:%\w+]]: f32, {{.*}}):
// ONCE-NEXT:     arith.mulf [[SUM]], [[FACTOR]] : f32
