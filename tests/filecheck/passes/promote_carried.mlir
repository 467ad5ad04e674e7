// RUN: xdsl-opt %s -p 'gemmir-tile{loops=k sizes=2},gemmir-promote{operand=c to=registers carry=true}' | filecheck %s

func.func @gemm(%a: memref<7x5xf32>, %b: memref<5x16xf32>, %c: memref<7x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<7x5xf32>, memref<5x16xf32>, memref<7x16xf32>
  func.return
}

// The accumulator begins with 0 in the first slice and with C in all others; what it holds after a
// slice is stored as it is.

// CHECK:      [[FIRST:%\w+]] = arith.cmpi eq, %p
// CHECK:      %acc = memref.alloca() : memref<7x16xf32, #gemmir.space<registers>>
// CHECK:      gemmir.epilogue ins(%c : memref<7x16xf32>) outs(%acc_1 : {{.*}}) {
// CHECK-NEXT: ^bb0([[OLD:%\w+]]: f32, {{%\w+}}: f32):
// CHECK-NEXT:   [[ZERO:%\w+]] = arith.constant 0.000000e+00 : f32
// CHECK-NEXT:   [[START:%\w+]] = arith.select [[FIRST]], [[ZERO]], [[OLD]] : f32
// CHECK-NEXT:   gemmir.yield [[START]] : f32
// CHECK-NEXT: }
// CHECK-NEXT: gemmir.gemm {{.*}}, %acc_1 alpha 1.000000e+00 : f64 beta 1.000000e+00 : f64
// CHECK-NEXT: gemmir.epilogue ins(%acc_1 : {{.*}}) outs(%c : memref<7x16xf32>) {
// CHECK-NEXT: ^bb0([[SUM:%\w+]]: f32, {{%\w+}}: f32):
// CHECK-NEXT:   gemmir.yield [[SUM]] : f32
