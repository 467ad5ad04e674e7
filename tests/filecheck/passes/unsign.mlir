// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l3 layout="panel:3x4"},gemmir-tile{loops=n sizes=16},gemmir-promote{operand=b to=l2 layout="panel:8x4"},gemmir-tile{loops=m,n sizes=3,8},gemmir-promote{operand=c to=registers},gemmir-unsign' | filecheck %s
// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l3 layout="panel:3x4"},gemmir-tile{loops=n sizes=16},gemmir-promote{operand=b to=l2 layout="panel:8x4"},gemmir-tile{loops=m,n sizes=3,8},gemmir-promote{operand=c to=registers},gemmir-unsign,gemmir-vectorize{with=dot width=8}' | filecheck %s --check-prefix VECTORS

func.func @gemm(%a: memref<6x10xi8>, %b: memref<10x32xi8>, %c: memref<6x32xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 2.0 : f64
    : memref<6x10xi8>, memref<10x32xi8>, memref<6x32xi32>
  func.return
}

// The copies of A have no sign; those of B are summed behind each of them, and a tile takes the sums
// of its own columns off, in all rows the same.

// CHECK-LABEL: @gemm
// CHECK:      %a_packed = memref.alloc() {{.*}} : memref<6x12xui8, #gemmir.panel<0, 3, 36, 3, 4>, #gemmir.space<l3>>
// CHECK:      %sums = memref.alloc() {alignment = 64 : i64} : memref<1x16xi32>
// CHECK:      gemmir.pack %a into {{.*}} : memref<6x10xi8> into memref<6x10xui8,
// CHECK:      gemmir.pack %b_1 into [[B:%\w+]]
// CHECK-NEXT: [[ROW:%\w+]] = memref.subview %sums[0, 0] [1, 16]
// CHECK-NEXT: gemmir.columnsum [[B]] into [[ROW]] times 128 : i64
// CHECK:      scf.for %i
// CHECK-NEXT: scf.for [[J:%\w+]]
// CHECK:      gemmir.gemm {{.*}} : memref<3x10xui8, {{.*}}>, memref<10x8xi8, {{.*}}>, memref<3x8xi32
// CHECK-NEXT: [[ROWS:%\w+]] = memref.reinterpret_cast %sums to offset: [0], sizes: [3, 16], strides: [0, 1]
// CHECK-NEXT: [[OWN:%\w+]] = memref.subview [[ROWS]][0, [[J]]] [3, 8]
// CHECK-NEXT: gemmir.epilogue ins(%acc_1, [[OWN]] :
// CHECK-NEXT: ^bb0([[SUM:%\w+]]: i32, [[EXTRA:%\w+]]: i32, [[OLD:%\w+]]: i32):
// CHECK-NEXT:   [[LESS:%\w+]] = arith.subi [[SUM]], [[EXTRA]] : i32
// CHECK:      memref.dealloc %sums

// The sums are a product by a column of 128 everywhere, which is 0 with 128 added.

// VECTORS-LABEL: @gemm
// VECTORS:      [[ZERO:%\w+]] = arith.constant dense<0> : vector<1x4xi8>
// VECTORS:      gemmir.unsign {{%\w+}} : vector<3x{{.*}}xi8> to vector<3x{{.*}}xui8>
// VECTORS:      [[FACTORS:%\w+]] = gemmir.unsign [[ZERO]] : vector<1x4xi8> to vector<1x4xui8>
// VECTORS:      scf.for {{.*}} iter_args([[TOTAL:%\w+]] =
// VECTORS-NEXT:   [[B:%\w+]] = vector.transfer_read {{.*}}vector<4x8xi8>
// VECTORS-NEXT:   gemmir.outerproduct [[FACTORS]], [[B]], [[TOTAL]] : vector<1x4xui8>, vector<4x8xi8>, vector<1x8xi32>
// VECTORS:      vector.transfer_write {{.*}}vector<1x8xi32>, memref<1x16xi32>
// VECTORS:      gemmir.outerproduct {{.*}} : vector<3x4xui8>, vector<4x8xi8>, vector<3x8xi32>
