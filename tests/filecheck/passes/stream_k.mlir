// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=4,8 over=blocks},gemmir-tile{loops=m,n sizes=2,2 over=threads},gemmir-promote{operand=c to=registers},gemmir-stream-k{blocks=5 slice=4}' | filecheck %s

func.func @gemm(%a: memref<44x8xf32>, %b: memref<8x8xf32>, %c: memref<44x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<44x8xf32>, memref<8x8xf32>, memref<44x8xf32>
  func.return
}

// Of 11 tiles each of five blocks has one; the 12 slices of the other six are dealt out. Of a dealt tile
// there are at most two parts.

// CHECK:      %parts = memref.alloc() {alignment = {{[0-9]+}} : i64} : memref<12x4x8xf32, #gemmir.space<global>>
// CHECK-NEXT: gemmir.forall %block = %0 to {{%\w+}} step {{%\w+}} over blocks {
// CHECK-NEXT:   scf.for %item = %0 to {{%\w+}} step {{%\w+}} {

// An item is a whole tile of C, or a part of one.

// CHECK:          gemmir.gemm
// CHECK-NEXT:     [[SOME:%\w+]] = arith.cmpi slt, %0, {{%\w+}} : index
// CHECK-NEXT:     scf.if [[SOME]] {
// CHECK-NEXT:       scf.if {{%\w+}} {
// CHECK-NEXT:         gemmir.epilogue ins({{.*}}) outs(%c_{{.*}}) {
// CHECK:            } else {
// CHECK:              memref.subview %parts[{{%\w+}}, 0, 0] [1, 4, 8]
// CHECK:              gemmir.epilogue ins({{.*}}) outs(%parts_{{.*}}) {
// CHECK:      } {gemmir.dim = "tiles"}

// Behind it threads add the parts of dealt tiles, as many as there are, in order.

// CHECK:      gemmir.forall %dealt = %0 to {{%\w+}} step {{%\w+}} over blocks {
// CHECK:      over threads {
// CHECK:      gemmir.epilogue ins([[FIRST:%\w+]] : {{.*}}) outs
// CHECK:      gemmir.epilogue ins([[FIRST]], {{%\w+}} : {{.*}}) outs
// CHECK-NEXT: ^bb0([[X:%\w+]]: f32, [[Y:%\w+]]: f32, {{%\w+}}: f32):
// CHECK-NEXT:   [[SUM:%\w+]] = arith.addf [[X]], [[Y]] : f32
// CHECK-NEXT:   gemmir.yield [[SUM]] : f32
