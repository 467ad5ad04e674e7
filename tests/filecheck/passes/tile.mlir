// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=3,8}' | filecheck %s
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m sizes=3 edges=overlap}' | filecheck %s --check-prefix OVERLAP
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m sizes=3 edges=peel}' | filecheck %s --check-prefix PEEL
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m sizes=3 edges=even}' | filecheck %s --check-prefix EVEN

func.func @gemm(%a: memref<7x5xf32>, %b: memref<5x16xf32>, %c: memref<7x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<7x5xf32>, memref<5x16xf32>, memref<7x16xf32>
  func.return
}

// Loops in the order given; 3 does not divide 7, so the last tile is smaller: min(3, 7 - i).

// CHECK:      [[ZERO:%\w+]] = arith.constant 0 : index
// CHECK-NEXT: [[M:%\w+]] = arith.constant 7 : index
// CHECK-NEXT: [[TM:%\w+]] = arith.constant 3 : index
// CHECK:      scf.for %i = [[ZERO]] to [[M]] step [[TM]] {
// CHECK-NEXT:   scf.for %j = [[ZERO]] to {{%\w+}} step {{%\w+}} {
// CHECK-NEXT:     [[REST:%\w+]] = arith.subi [[M]], %i : index
// CHECK-NEXT:     [[SIZE:%\w+]] = arith.minsi [[TM]], [[REST]] : index
// CHECK-NEXT:     %a_1 = memref.subview %a[%i, 0] {{\[}}[[SIZE]], 5] [1, 1]
// CHECK-NEXT:     %b_1 = memref.subview %b[0, %j] [5, 8] [1, 1]
// CHECK-NEXT:     %c_1 = memref.subview %c[%i, %j] {{\[}}[[SIZE]], 8] [1, 1]
// CHECK-NEXT:     gemmir.gemm %a_1, %b_1, %c_1 alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64
// CHECK-NEXT:   } {gemmir.dim = "n"}
// CHECK-NEXT: } {gemmir.dim = "m"}

// Full tiles everywhere: the last one begins at 4 instead of 6. B is not cut, so it has no view.

// OVERLAP:      [[LATEST:%\w+]] = arith.constant 4 : index
// OVERLAP-NEXT: scf.for %i =
// OVERLAP-NEXT:   [[AT:%\w+]] = arith.minsi %i, [[LATEST]] : index
// OVERLAP-NEXT:   %a_1 = memref.subview %a{{\[}}[[AT]], 0] [3, 5] [1, 1]
// OVERLAP-NEXT:   %c_1 = memref.subview %c{{\[}}[[AT]], 0] [3, 16] [1, 1]
// OVERLAP-NEXT:   gemmir.gemm %a_1, %b, %c_1

// The last tile has a loop of its own, with its static size of 1.

// PEEL:      scf.for %i =
// PEEL-NEXT:   memref.subview %a[%i, 0] [3, 5] [1, 1]
// PEEL:      } {gemmir.dim = "m"}
// PEEL-NEXT: scf.for %i_1 =
// PEEL-NEXT:   memref.subview %a[%i_1, 0] [1, 5] [1, 1]

// Three tiles again, of 3, 2 and 2 rows: two loops, the second of tiles with one row less.

// EVEN-DAG:  [[TWO:%\w+]] = arith.constant 2 : index
// EVEN-DAG:  [[THREE:%\w+]] = arith.constant 3 : index
// EVEN-DAG:  [[M:%\w+]] = arith.constant 7 : index
// EVEN:      scf.for %i = {{%\w+}} to [[THREE]] step [[THREE]] {
// EVEN-NEXT:   memref.subview %a[%i, 0] [3, 5] [1, 1]
// EVEN:      scf.for %i_1 = [[THREE]] to [[M]] step [[TWO]] {
// EVEN-NEXT:   memref.subview %a[%i_1, 0] [2, 5] [1, 1]
