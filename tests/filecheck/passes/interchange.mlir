// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n,k sizes=2,8,4},gemmir-interchange{order=k,n,m}' | filecheck %s

func.func @gemm(%a: memref<6x8xf32>, %b: memref<8x16xf32>, %c: memref<6x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<6x8xf32>, memref<8x16xf32>, memref<6x16xf32>
  func.return
}

// The loops change places with their bounds and variables; what is inside stays as it was.

// CHECK:      scf.for %p =
// CHECK-NEXT:   scf.for %j =
// CHECK-NEXT:     scf.for %i =
// CHECK-NEXT:       [[FIRST:%\w+]] = arith.cmpi eq, %p, {{%\w+}} : index
// CHECK-NEXT:       memref.subview %a[%i, %p] [2, 4] [1, 1]
// CHECK-NEXT:       memref.subview %b[%p, %j] [4, 8] [1, 1]
// CHECK-NEXT:       memref.subview %c[%i, %j] [2, 8] [1, 1]
// CHECK-NEXT:       gemmir.gemm {{.*}} first [[FIRST]]
// CHECK-NEXT:     } {gemmir.dim = "m"}
// CHECK-NEXT:   } {gemmir.dim = "n"}
// CHECK-NEXT: } {gemmir.dim = "k"}
