// RUN: xdsl-opt %s -p 'gemmir-promote{operand=b to=l2 layout="panel:8"},gemmir-tile{loops=m,n sizes=4,8},gemmir-tile{loops=k sizes=2},gemmir-fuse-pack{operand=b}' | filecheck %s

func.func @gemm(%a: memref<12x6xf32>, %b: memref<6x13xf32>, %c: memref<12x13xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<12x6xf32>, memref<6x13xf32>, memref<12x13xf32>
  func.return
}

// The first four rows of A copy what they read of B, two rows of a panel at a time, the last panel
// to its full width. The other rows read the panels.

// CHECK-NOT:  gemmir.pack %b into
// CHECK:      scf.for [[J:%\w+]] =
// CHECK:        scf.for [[K:%\w+]] =
// CHECK:          [[FROM:%\w+]] = memref.subview %b_1{{\[}}[[K]], 0] [2, {{%\w+}}] {{.*}} to memref<2x?xf32, strided<[13, 1], offset: ?>>
// CHECK-NEXT:     [[TO:%\w+]] = memref.subview %b_packed{{\[}}[[K]], [[J]]] [2, 8] {{.*}} to memref<2x8xf32, strided<[8, 1], offset: ?>, #gemmir.space<l2>>
// CHECK-NEXT:     gemmir.pack [[FROM]] into [[TO]]
// CHECK-NEXT:     gemmir.gemm
// CHECK:      scf.for {{%\w+}} = %{{\w+}} to
// CHECK-NOT:    gemmir.pack
// CHECK:        gemmir.gemm
