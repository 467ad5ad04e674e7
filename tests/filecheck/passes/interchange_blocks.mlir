// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=4,8 over=blocks},gemmir-interchange{order=n,m group=2}' | filecheck %s

func.func @gemm(%a: memref<12x8xf32>, %b: memref<8x24xf32>, %c: memref<12x24xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<12x8xf32>, memref<8x24xf32>, memref<12x24xf32>
  func.return
}

// Two loops become one over the numbers of the tiles; 2 tiles of n come for each tile of m. The
// last group of 3 tiles has one.

// CHECK:      gemmir.forall %block = %0 to {{%\w+}} step {{%\w+}} over blocks {
// CHECK-NEXT:   [[GROUP:%\w+]] = arith.divui %block, [[ALL:%\w+]] : index
// CHECK-NEXT:   [[REST:%\w+]] = arith.remui %block, [[ALL]] : index
// CHECK-NEXT:   [[FIRST:%\w+]] = arith.muli [[GROUP]], [[TWO:%\w+]] : index
// CHECK-NEXT:   [[LEFT:%\w+]] = arith.subi {{%\w+}}, [[FIRST]] : index
// CHECK-NEXT:   [[SIZE:%\w+]] = arith.minsi [[TWO]], [[LEFT]] : index
// CHECK-NEXT:   [[DOWN:%\w+]] = arith.remui [[REST]], [[SIZE]] : index
// CHECK-NEXT:   [[ACROSS:%\w+]] = arith.divui [[REST]], [[SIZE]] : index
// CHECK-NEXT:   [[TILE:%\w+]] = arith.addi [[FIRST]], [[DOWN]] : index
// CHECK-NEXT:   %j = arith.muli [[TILE]], {{%\w+}} : index
// CHECK-NEXT:   %i = arith.muli [[ACROSS]], {{%\w+}} : index
// CHECK-NEXT:   memref.subview %a[%i, 0] [4, 8] [1, 1]
// CHECK-NEXT:   memref.subview %b[0, %j] [8, 8] [1, 1]
// CHECK-NEXT:   memref.subview %c[%i, %j] [4, 8] [1, 1]
// CHECK-NEXT:   gemmir.gemm
// CHECK-NEXT: } {gemmir.dim = "n,m"}
