// RUN: xdsl-opt %s -p 'gemmir-tile{loops=n sizes=8},gemmir-promote{operand=a to=l2 layout="panel:3"}' | filecheck %s
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=k sizes=2},gemmir-promote{operand=c to=registers prefetch=true}' | filecheck %s --check-prefix ACC

func.func @gemm(%a: memref<7x5xf32>, %b: memref<5x16xf32>, %c: memref<7x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 2.0 : f64 beta 3.0 : f64
    : memref<7x5xf32>, memref<5x16xf32>, memref<7x16xf32>
  func.return
}

// The buffer holds three whole panels of 3 rows, 15 elements apart. It is made once; the copy is
// made where the pass stands among the tiles.

// CHECK:      %a_packed = memref.alloc() {alignment = 4096 : i64} : memref<9x5xf32, #gemmir.panel<0, 3, 15>, #gemmir.space<l2>>
// CHECK-NEXT: scf.for %j =
// CHECK:        [[VIEW:%\w+]] = memref.subview %a_packed[0, 0] [7, 5] [1, 1]
// CHECK-NEXT:   gemmir.pack %a into [[VIEW]] : memref<7x5xf32> into memref<7x5xf32, #gemmir.panel<0, 3, 15>, #gemmir.space<l2>>
// CHECK-NEXT:   gemmir.gemm [[VIEW]], %b_1, %c_1
// CHECK-NEXT: } {gemmir.dim = "n"}
// CHECK-NEXT: memref.dealloc %a_packed

// C is summed in registers, without factors. They are applied when the sum is written back: alpha
// each time, beta on the first slice of k, and later slices add to C.

// ACC:      [[FIRST:%\w+]] = arith.cmpi eq, %p
// ACC:      %acc = memref.alloca() : memref<7x16xf32, #gemmir.space<registers>>
// ACC:      gemmir.prefetch %c : memref<7x16xf32>
// ACC-NEXT: gemmir.gemm {{.*}} alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64
// ACC-NEXT: scf.if [[FIRST]] {
// ACC-NEXT:   gemmir.epilogue ins(%acc_1 : {{.*}}) outs(%c : memref<7x16xf32>) {
// ACC-NEXT:   ^bb0([[SUM:%\w+]]: f32, [[OLD:%\w+]]: f32):
// ACC-NEXT:     [[ALPHA:%\w+]] = arith.constant 2.000000e+00 : f32
// ACC-NEXT:     [[SCALED:%\w+]] = arith.mulf [[SUM]], [[ALPHA]] : f32
// ACC-NEXT:     [[BETA:%\w+]] = arith.constant 3.000000e+00 : f32
// ACC-NEXT:     [[KEPT:%\w+]] = arith.mulf [[OLD]], [[BETA]] : f32
// ACC-NEXT:     [[NEW:%\w+]] = arith.addf [[SCALED]], [[KEPT]] : f32
// ACC-NEXT:     gemmir.yield [[NEW]] : f32
// ACC-NEXT:   }
// ACC-NEXT: } else {
// ACC-NEXT:   gemmir.epilogue
// ACC-NEXT:   ^bb0([[LATER:%\w+]]: f32, [[SOFAR:%\w+]]: f32):
// ACC:          arith.addf {{%\w+}}, [[SOFAR]] : f32
