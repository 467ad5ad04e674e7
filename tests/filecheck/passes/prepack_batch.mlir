// RUN: xdsl-opt %s -p 'gemmir-tile{loops=batch sizes=1},gemmir-promote{operand=b to=l3 layout="panel:8"},gemmir-prepack{operand=b}' | filecheck %s

func.func @gemm(%a: memref<3x7x5xf32> {gemmir.name = "a", gemmir.access = "read"},
                %b: memref<3x5x12xf32> {gemmir.name = "b", gemmir.access = "read"},
                %c: memref<3x7x12xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<3x7x5xf32>, memref<3x5x12xf32>, memref<3x7x12xf32>
  func.return
}

// The panels of a matrix are behind those of the one before.

// CHECK:      func.func nested @gemm_packed_b(%a: memref<3x7x5xf32> {{.*}}, %b_packed: memref<5x48xf32, #gemmir.panel<1, 8, 40>, #gemmir.space<l3>>
// CHECK:        scf.for [[S:%\w+]] =
// CHECK:          [[BEGIN:%\w+]] = arith.muli [[S]], %{{.*}}
// CHECK-NEXT:     [[VIEW:%\w+]] = memref.subview %b_packed[0, [[BEGIN]]] [5, 12] [1, 1]
// CHECK-NEXT:     gemmir.gemm {{.*}}, [[VIEW]],

// CHECK:      func.func nested @gemm_pack_b(%b: memref<3x5x12xf32>
// CHECK:        scf.for [[I:%\w+]] =
// CHECK:          [[AT:%\w+]] = arith.muli [[I]], %{{.*}}
// CHECK-NEXT:     [[WINDOW:%\w+]] = memref.subview %packed[0, [[AT]]] [5, 12] [1, 1]
// CHECK-NEXT:     gemmir.pack %{{.*}} into [[WINDOW]]
