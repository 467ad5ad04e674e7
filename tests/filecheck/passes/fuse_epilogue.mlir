// RUN: xdsl-opt %s -p 'gemmir-tile{loops=k sizes=2},gemmir-tile{loops=n sizes=8},gemmir-promote{operand=c to=registers},gemmir-fuse-epilogue' | filecheck %s

func.func @gemm(%a: memref<7x5xf32>, %b: memref<5x16xf32>, %bias: memref<16xf32>, %c: memref<7x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<7x5xf32>, memref<5x16xf32>, memref<7x16xf32>
  %rows = memref.reinterpret_cast %bias to offset: [0], sizes: [7, 16], strides: [0, 1]
    : memref<16xf32> to memref<7x16xf32, strided<[0, 1]>>
  gemmir.epilogue ins(%rows : memref<7x16xf32, strided<[0, 1]>>) outs(%c : memref<7x16xf32>) {
  ^bb0(%x: f32, %old: f32):
    %sum = arith.addf %old, %x : f32
    gemmir.yield %sum : f32
  }
  func.return
}

// The first slice of k stores, slices between add, and the last one, which begins at 4 and has one
// element, adds and applies the epilogue to its tile of C and of bias. The first is never the last.

// CHECK:      %rows = memref.reinterpret_cast %bias
// CHECK:      scf.for %p = {{%\w+}} to [[K:%\w+]] step [[TK:%\w+]] {
// CHECK:        [[FIRST:%\w+]] = arith.cmpi eq, %p, {{%\w+}} : index
// CHECK:        scf.for %j =
// CHECK:          scf.if [[FIRST]] {
// CHECK-NEXT:       gemmir.epilogue ins(%acc_1 : {{.*}}) outs([[TILE:%\w+]]
// CHECK-NEXT:       ^bb0([[ACC:%\w+]]: f32, {{%\w+}}: f32):
// CHECK-NEXT:         gemmir.yield [[ACC]] : f32
// CHECK-NEXT:       }
// CHECK-NEXT:     } else {
// CHECK-NEXT:       [[NEXT:%\w+]] = arith.addi %p, [[TK]] : index
// CHECK-NEXT:       [[LAST:%\w+]] = arith.cmpi sge, [[NEXT]], [[K]] : index
// CHECK-NEXT:       scf.if [[LAST]] {
// CHECK-NEXT:         [[BIAS:%\w+]] = memref.subview %rows[0, %j] [7, 8] [1, 1]
// CHECK-NEXT:         gemmir.epilogue ins(%acc_1, [[BIAS]] : {{.*}}) outs([[TILE]]
// CHECK-NEXT:         ^bb0([[ACC2:%\w+]]: f32, [[X:%\w+]]: f32, [[OLD:%\w+]]: f32):
// CHECK-NEXT:           [[SUM:%\w+]] = arith.addf [[ACC2]], [[OLD]] : f32
// CHECK-NEXT:           [[NEW:%\w+]] = arith.addf [[SUM]], [[X]] : f32
// CHECK-NEXT:           gemmir.yield [[NEW]] : f32
// CHECK-NEXT:         }
// CHECK-NEXT:       } else {
// CHECK-NEXT:         gemmir.epilogue ins(%acc_1
// CHECK-NOT:  gemmir.epilogue
// CHECK:      func.return
