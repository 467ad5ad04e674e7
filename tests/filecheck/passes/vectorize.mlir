// RUN: xdsl-opt %s -p 'gemmir-promote{operand=b to=l3 layout="panel:8"},gemmir-tile{loops=n,m sizes=8,3},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=4}' | filecheck %s

func.func @gemm(%a: memref<7x5xf32>, %b: memref<5x16xf32>, %c: memref<7x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<7x5xf32>, memref<5x16xf32>, memref<7x16xf32>
  func.return
}

// The copy of B goes panel by panel: rows of 8 elements, which lie 8 apart in a panel.

// CHECK:      [[PANEL:%\w+]] = memref.subview %b_packed[0, {{%\w+}}] [5, 8] [1, 1] : {{.*}} to memref<5x8xf32, strided<[8, 1], offset: ?>, #gemmir.space<l3>>
// CHECK-NEXT: [[ROW:%\w+]] = vector.transfer_read %b{{.*}} : memref<5x16xf32>, vector<1x8xf32>
// CHECK-NEXT: vector.transfer_write [[ROW]], [[PANEL]]{{.*}} : vector<1x8xf32>

// A tile of 3 x 8 is two accumulators of 3 x 4. Each step of k reads a column of A, masked since A
// is not packed, and a row of B, not masked since panels are whole.

// CHECK:      [[X:%\w+]], [[Y:%\w+]] = scf.for [[K:%\w+]] = {{.*}} iter_args([[P:%\w+]] = [[Z:%\w+]], [[Q:%\w+]] = [[Z]]) -> (vector<3x4xf32>, vector<3x4xf32>) {
// CHECK-NEXT:   [[A:%\w+]] = vector.transfer_read %a_1[{{%\w+}}, [[K]]], {{%\w+}} {in_bounds = [false, true]} : {{.*}}, vector<3x1xf32>
// CHECK-NEXT:   [[B0:%\w+]] = vector.transfer_read [[B:%\w+]]{{\[}}[[K]], {{%\w+}}], {{%\w+}} {in_bounds = [true, true]} : {{.*}}, vector<1x4xf32>
// CHECK-NEXT:   [[B1:%\w+]] = vector.transfer_read [[B]]{{\[}}[[K]], {{%\w+}}], {{%\w+}} {in_bounds = [true, true]} : {{.*}}, vector<1x4xf32>
// CHECK-NEXT:   [[R:%\w+]] = gemmir.outerproduct [[A]], [[B0]], [[P]] : vector<3x1xf32>, vector<1x4xf32>, vector<3x4xf32>
// CHECK-NEXT:   [[S:%\w+]] = gemmir.outerproduct [[A]], [[B1]], [[Q]] : vector<3x1xf32>, vector<1x4xf32>, vector<3x4xf32>
// CHECK-NEXT:   scf.yield [[R]], [[S]]
// CHECK-NEXT: } {gemmir.dim = "k"}

// One version of the write-back for full tiles, one clipped at the edge.

// CHECK-NEXT: [[FULL:%\w+]] = arith.cmpi eq
// CHECK-NEXT: scf.if [[FULL]] {
// CHECK-NEXT:   vector.transfer_write [[X]], %c_1[{{.*}}] {in_bounds = [true, true]}
// CHECK-NEXT:   vector.transfer_write [[Y]], %c_1[{{.*}}] {in_bounds = [true, true]}
// CHECK-NEXT: } else {
// CHECK-NEXT:   vector.transfer_write [[X]], %c_1[{{%\w+}}, {{%\w+}}] : vector<3x4xf32>
