// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l2 layout="panel:1"},gemmir-tile{loops=n,m sizes=4,3},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=32},gemmir-unsign' | filecheck %s
// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l2 layout="panel:1"},gemmir-tile{loops=n,m sizes=4,3},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=32},gemmir-unsign,gemmir-vectorize{with=dot width=8 along=k}' | filecheck %s --check-prefix VECTORS

func.func @gemm(%a: memref<6x64xi8>, %b: memref<64x8xi8, strided<[1, 64]>>, %c: memref<6x8xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<6x64xi8>, memref<64x8xi8, strided<[1, 64]>>, memref<6x8xi32>
  func.return
}

// Rows of the copy of A are summed, a tile takes the sums of its own rows off, in all columns the
// same, and of B a view counts 128 more.

// CHECK-LABEL: @gemm
// CHECK:      %sums = memref.alloc() {alignment = 64 : i64} : memref<6x1xi32>
// CHECK:      gemmir.pack %a into [[A:%\w+]] : memref<6x64xi8> into memref<6x64xi8,
// CHECK-NEXT: [[COLUMN:%\w+]] = memref.subview %sums[0, 0] [6, 1]
// CHECK-NEXT: gemmir.rowsum [[A]] into [[COLUMN]] times 128 : i64
// CHECK:      scf.for %i
// CHECK:        scf.for
// CHECK:          [[B:%\w+]] = gemmir.unsigned {{%\w+}} : memref<32x4xi8,
// CHECK-NEXT:     gemmir.gemm {{%\w+}}, [[B]], {{.*}} : memref<3x32xi8, {{.*}}>, memref<32x4xui8,
// CHECK:        memref.reinterpret_cast %sums to offset: [0], sizes: [6, 4], strides: [1, 0]
// CHECK:        arith.subi

// VECTORS-LABEL: @gemm
// VECTORS:      [[ZERO:%\w+]] = arith.constant dense<0> : vector<1x32xi8>
// VECTORS:      [[FACTORS:%\w+]] = gemmir.unsign [[ZERO]] : vector<1x32xi8> to vector<1x32xui8>
// VECTORS:      gemmir.pairproduct {{%\w+}}, [[FACTORS]], {{.*}} : vector<1x32xi8>, vector<1x32xui8>, vector<1x8xi32>
// VECTORS:      gemmir.lanesum {{.*}} : vector<1x8xi32> to vector<1x1xi32>
// VECTORS:      [[READ:%\w+]] = vector.transfer_read {{.*}}permutation_map{{.*}}vector<4x32xi8>
// VECTORS-NEXT: [[BARE:%\w+]] = gemmir.unsign [[READ]] : vector<4x32xi8> to vector<4x32xui8>
// VECTORS-NEXT: gemmir.pairproduct {{%\w+}}, [[BARE]], {{.*}} : vector<3x32xi8>, vector<4x32xui8>, vector<12x8xi32>
