// RUN: xdsl-opt %s -p 'gemmir-split-k{factor=3 order=fixed}' | filecheck %s

func.func @gemm(%a: memref<8x80xf32>, %b: memref<80x12xf32>, %c: memref<8x12xf32>) {
  gemmir.gemm %a, %b, %c alpha 2.0 : f64 beta 1.0 : f64
    : memref<8x80xf32>, memref<80x12xf32>, memref<8x12xf32>
  func.return
}

// Three slices of 32, the last of 16, are summed into a workspace. Then 24 pieces of 4 elements, one
// a thread, are added in the order of k.

// CHECK:      %parts = memref.alloc() {alignment = 256 : i64} : memref<3x8x12xf32, #gemmir.space<global>>
// CHECK-NEXT: gemmir.forall %s = {{.*}} over blocks {
// CHECK-NEXT:   [[START:%\w+]] = arith.muli %s, {{%\w+}} : index
// CHECK-NEXT:   [[REST:%\w+]] = arith.subi {{%\w+}}, [[START]] : index
// CHECK-NEXT:   [[SIZE:%\w+]] = arith.minsi {{%\w+}}, [[REST]] : index
// CHECK-NEXT:   memref.subview %a[0, [[START]]] [8, [[SIZE]]] [1, 1]
// CHECK-NEXT:   memref.subview %b{{\[}}[[START]], 0] {{\[}}[[SIZE]], 12] [1, 1]
// CHECK-NEXT:   memref.subview %parts[%s, 0, 0] [1, 8, 12] [1, 1, 1]
// CHECK-NEXT:   gemmir.gemm {{.*}} alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64
// CHECK-NEXT: } {gemmir.dim = "slice"}
// CHECK-NEXT: gemmir.forall %block = {{.*}} over blocks {
// CHECK-NEXT:   gemmir.forall %thread = {{.*}} over threads {
// CHECK-NEXT:     [[PIECE:%\w+]] = arith.addi %block, %thread : index
// CHECK-NEXT:     [[THERE:%\w+]] = arith.cmpi slt, [[PIECE]], {{%\w+}} : index
// CHECK-NEXT:     scf.if [[THERE]] {
// CHECK-NEXT:       [[ROW:%\w+]] = arith.divui [[PIECE]], [[ACROSS:%\w+]] : index
// CHECK-NEXT:       [[PLACE:%\w+]] = arith.remui [[PIECE]], [[ACROSS]] : index
// CHECK-NEXT:       [[COLUMN:%\w+]] = arith.muli [[PLACE]], {{%\w+}} : index
// CHECK:            memref.subview %c{{\[}}[[ROW]], [[COLUMN]]] [1, 4] [1, 1]
// CHECK-NEXT:       gemmir.epilogue
// CHECK-NEXT:       ^bb0([[P0:%\w+]]: f32, [[P1:%\w+]]: f32, [[P2:%\w+]]: f32, [[OLD:%\w+]]: f32):
// CHECK-NEXT:         [[S1:%\w+]] = arith.addf [[P0]], [[P1]] : f32
// CHECK-NEXT:         [[S2:%\w+]] = arith.addf [[S1]], [[P2]] : f32
// CHECK-NEXT:         arith.constant 2.000000e+00 : f32
// CHECK-NEXT:         [[SCALED:%\w+]] = arith.mulf [[S2]], {{%\w+}} : f32
// CHECK-NEXT:         [[SUM:%\w+]] = arith.addf [[SCALED]], [[OLD]] : f32
// CHECK-NEXT:         gemmir.yield [[SUM]] : f32
// CHECK:      memref.dealloc %parts
