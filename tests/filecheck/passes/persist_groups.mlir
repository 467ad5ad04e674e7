// RUN: xdsl-opt %s -p 'gemmir-tile{loops=group,m,n sizes=1,4,8 over=blocks},gemmir-persist{blocks=2}' | filecheck %s

func.func @gemm(%a: memref<9x8xf32>, %b: memref<3x8x16xf32>, %offsets: memref<4xi32>, %c: memref<9x16xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %three = arith.constant 3 : index
  %nine = arith.constant 9 : index
  scf.for %g = %zero to %three step %one {
    %after = arith.addi %g, %one : index
    %x = memref.load %offsets[%g] : memref<4xi32>
    %begin = arith.index_cast %x : i32 to index
    %y = memref.load %offsets[%after] : memref<4xi32>
    %end = arith.index_cast %y : i32 to index
    %length = arith.subi %end, %begin : index
    %rows = arith.minsi %length, %nine : index
    %ag = memref.subview %a[%begin, 0] [%rows, 8] [1, 1]
        : memref<9x8xf32> to memref<?x8xf32, strided<[8, 1], offset: ?>>
    %bg = memref.subview %b[%g, 0, 0] [1, 8, 16] [1, 1, 1]
        : memref<3x8x16xf32> to memref<8x16xf32, strided<[16, 1], offset: ?>>
    %cg = memref.subview %c[%begin, 0] [%rows, 16] [1, 1]
        : memref<9x16xf32> to memref<?x16xf32, strided<[16, 1], offset: ?>>
    gemmir.gemm %ag, %bg, %cg alpha 1.0 : f64 beta 0.0 : f64
        : memref<?x8xf32, strided<[8, 1], offset: ?>>,
          memref<8x16xf32, strided<[16, 1], offset: ?>>,
          memref<?x16xf32, strided<[16, 1], offset: ?>>
    gemmir.epilogue outs(%cg : memref<?x16xf32, strided<[16, 1], offset: ?>>) {
    ^bb0(%x_element: f32):
      %doubled = arith.addf %x_element, %x_element : f32
      gemmir.yield %doubled : f32
    }
  } {gemmir.dim = "group"}
  func.return
}

// Blocks count the tiles of rows first, each of two tiles of columns, and look for the product of each
// tile that they take. It is there, so that there is no branch. The epilogue works on that tile too.

// CHECK:      gemmir.forall %block = %zero to [[TWO:%\w+]] step %one over blocks {
// CHECK-NEXT:   [[ALL:%\w+]] = scf.for {{%\w+}} = %zero to %three step %one iter_args([[SUM:%\w+]] = {{%\w+}}) -> (index) {
// CHECK:          [[PAST:%\w+]] = arith.addi [[SUM]], {{%\w+}} : index
// CHECK-NEXT:     scf.yield [[PAST]] : index
// CHECK:        [[COUNT:%\w+]] = arith.muli [[ALL]], [[TWO]] : index
// CHECK-NEXT:   scf.for %tile = %block to [[COUNT]] step [[TWO]] {
// CHECK-NEXT:     [[COLUMN:%\w+]] = arith.remui %tile, [[TWO]] : index
// CHECK-NEXT:     %j = arith.muli [[COLUMN]], {{%\w+}} : index
// CHECK-NEXT:     %t = arith.divui %tile, [[TWO]] : index
// CHECK-NEXT:     {{%\w+}}, [[G:%\w+]], {{%\w+}} = scf.for
// CHECK:            arith.cmpi sle, {{%\w+}}, %t : index
// CHECK:            memref.load %offsets{{\[}}[[G]]]
// CHECK-NOT:      scf.if
// CHECK:          gemmir.gemm {{%\w+}}, {{%\w+}}, [[C:%\w+]] alpha
// CHECK-NEXT:     gemmir.epilogue outs([[C]] : memref<?x8xf32
// CHECK:        } {gemmir.dim = "tiles"}
// CHECK-NEXT: } {gemmir.dim = "tiles"}
