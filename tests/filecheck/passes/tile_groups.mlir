// RUN: xdsl-opt %s -p 'gemmir-tile{loops=group,m sizes=1,4 over=blocks}' | filecheck %s

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
  } {gemmir.dim = "group"}
  func.return
}

// Nine rows of three products are at most four tiles of four. A block counts the tiles of the
// products before its own, and then works on its tile of the one that it has found.

// CHECK:      [[FOUR:%\w+]] = arith.constant 4 : index
// CHECK:      gemmir.forall %t = %zero to [[FOUR]] step %one over blocks {
// CHECK-NEXT:   [[TOTAL:%\w+]], [[G:%\w+]], [[FIRST:%\w+]] = scf.for [[N:%\w+]] = %zero to %three step %one iter_args
// CHECK:          memref.load %offsets{{\[}}[[N]]]
// CHECK:          [[ROWS:%\w+]] = arith.minsi {{%\w+}}, %nine : index
// CHECK-NEXT:     [[UP:%\w+]] = arith.addi [[ROWS]], {{%\w+}} : index
// CHECK-NEXT:     [[TILES:%\w+]] = arith.divui [[UP]], [[FOUR]] : index
// CHECK-NEXT:     [[PAST:%\w+]] = arith.addi {{%\w+}}, [[TILES]] : index
// CHECK-NEXT:     [[BEFORE:%\w+]] = arith.cmpi sle, [[PAST]], %t : index
// CHECK-NEXT:     [[NEXT:%\w+]] = arith.addi [[N]], %one : index
// CHECK-NEXT:     [[NEWG:%\w+]] = arith.select [[BEFORE]], [[NEXT]], {{%\w+}} : index
// CHECK-NEXT:     [[NEWF:%\w+]] = arith.select [[BEFORE]], [[PAST]], {{%\w+}} : index
// CHECK-NEXT:     scf.yield [[PAST]], [[NEWG]], [[NEWF]] : index, index, index
// CHECK:        [[THERE:%\w+]] = arith.cmpi slt, %t, [[TOTAL]] : index
// CHECK-NEXT:   scf.if [[THERE]] {
// CHECK:          memref.load %offsets{{\[}}[[G]]]
// CHECK:          [[IN:%\w+]] = arith.subi %t, [[FIRST]] : index
// CHECK-NEXT:     %i = arith.muli [[IN]], [[FOUR]] : index
// CHECK:          memref.subview %ag[%i, 0]
// CHECK:          gemmir.gemm
// CHECK:      } {gemmir.dim = "group"}
