// RUN: xdsl-opt %s -p 'gemmir-promote{operand=b to=l3 layout="panel:8"},gemmir-tile{loops=m sizes=3},gemmir-promote{operand=a to=l2 layout="panel:3"},gemmir-parallelize{loop=m}' | filecheck %s

func.func @gemm(%a: memref<7x5xf32>, %b: memref<5x16xf32>, %c: memref<7x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<7x5xf32>, memref<5x16xf32>, memref<7x16xf32>
  func.return
}

// B is packed once and shared; A is packed by each iteration for itself, into memory of its own.

// CHECK:      %b_packed = memref.alloc()
// CHECK-NOT:  memref.alloc()
// CHECK:      gemmir.pack %b into
// CHECK-NEXT: gemmir.forall %i = {{%\w+}} to {{%\w+}} step {{%\w+}} over cores {
// CHECK-NEXT:   %a_packed = memref.alloc()
// CHECK:        gemmir.pack %a_1 into
// CHECK:        memref.dealloc %a_packed
// CHECK-NEXT: } {gemmir.dim = "m"}
// CHECK-NEXT: memref.dealloc %b_packed
