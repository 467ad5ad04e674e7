// RUN: xdsl-opt %s -p 'gemmir-tile{loops=n sizes=8},gemmir-prefetch{operand=b loop=n ahead=2 to=l2}' | filecheck %s

func.func @gemm(%a: memref<4x5xf32>, %b: memref<5x64xf32>, %c: memref<4x64xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<4x5xf32>, memref<5x64xf32>, memref<4x64xf32>
  func.return
}

// The tile that is read two iterations later, or the last one.

// CHECK-DAG:  [[AHEAD:%\w+]] = arith.constant 16 : index
// CHECK-DAG:  [[LAST:%\w+]] = arith.constant 56 : index
// CHECK:      scf.for [[J:%\w+]] = {{%\w+}} to {{%\w+}} step {{%\w+}} {
// CHECK:        [[THEN:%\w+]] = arith.addi [[J]], [[AHEAD]] : index
// CHECK-NEXT:   [[FAR:%\w+]] = arith.minsi [[THEN]], [[LAST]] : index
// CHECK-NEXT:   [[TILE:%\w+]] = memref.subview %b[0, [[FAR]]] [5, 8] [1, 1]
// CHECK-NEXT:   gemmir.prefetch [[TILE]] into <l2>
// CHECK-NEXT:   memref.subview %b[0, [[J]]] [5, 8] [1, 1]
// CHECK:        gemmir.gemm
