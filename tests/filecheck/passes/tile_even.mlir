// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m sizes=4},gemmir-tile{loops=m sizes=2 edges=even}' | filecheck %s
// Of r rows there are (r + 1) / 2 tiles. r less one row for each tile are left for second rows of theirs.

func.func @gemm(%a: memref<7x7xf32>, %b: memref<7x5xf32>, %c: memref<7x5xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<7x7xf32>, memref<7x5xf32>, memref<7x5xf32>
  func.return
}
// CHECK:      [[ROWS:%\w+]] = arith.minsi
// CHECK:      [[WIDE:%\w+]] = arith.addi [[ROWS]], {{%\w+}} : index
// CHECK-NEXT: [[COUNT:%\w+]] = arith.divui [[WIDE]], {{%\w+}} : index
// CHECK-NEXT: [[FIRST:%\w+]] = arith.muli [[COUNT]], {{%\w+}} : index
// CHECK-NEXT: [[REST:%\w+]] = arith.subi [[ROWS]], [[FIRST]] : index
// CHECK-NEXT: [[SOME:%\w+]] = arith.maxsi [[REST]], {{%\w+}} : index
// CHECK-NEXT: arith.minsi [[SOME]], [[COUNT]] : index
// CHECK:      scf.for
// CHECK:      gemmir.gemm {{.*}} memref<2x5xf32, strided<[5, 1], offset: ?>>
// CHECK:      scf.for
// CHECK:      gemmir.gemm {{.*}} memref<1x5xf32, strided<[5, 1], offset: ?>>
// CHECK-NOT:  gemmir.gemm
