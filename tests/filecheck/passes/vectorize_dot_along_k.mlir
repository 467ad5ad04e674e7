// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=dot width=8 along=k}' | filecheck %s

func.func @gemm(%a: memref<2x70xui8>, %b: memref<70x3xi8, strided<[1, 70]>>, %c: memref<2x3xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<2x70xui8>, memref<70x3xi8, strided<[1, 70]>>, memref<2x3xi32>
  func.return
}

// Each of 8 lanes takes 4 neighbours along k: 32 elements of each row, and what is left with zeros.

// CHECK-LABEL: @gemm
// CHECK:      [[LOOP:%\w+]] = scf.for [[K:%\w+]] = {{%\w+}} to {{%\w+}} step {{%\w+}} iter_args([[ACC:%\w+]] = {{%\w+}}) -> (vector<6x8xi32>)
// CHECK-NEXT:   [[A:%\w+]] = vector.transfer_read %a[{{%\w+}}, [[K]]], {{%\w+}} {in_bounds = [true, true]} : memref<2x70xui8>, vector<2x32xui8>
// CHECK-NEXT:   [[B:%\w+]] = vector.transfer_read %b{{\[}}[[K]], {{%\w+}}], {{.*}}permutation_map = affine_map<(d0, d1) -> (d1, d0)>{{.*}} vector<3x32xi8>
// CHECK-NEXT:   [[SUM:%\w+]] = gemmir.pairproduct [[A]], [[B]], [[ACC]] : vector<2x32xui8>, vector<3x32xi8>, vector<6x8xi32>
// CHECK-NEXT:   scf.yield [[SUM]]
// CHECK:      [[RA:%\w+]] = vector.transfer_read %a{{.*}} {in_bounds = [true, false]}
// CHECK-NEXT: [[RB:%\w+]] = vector.transfer_read %b{{.*}}in_bounds = [true, false]
// CHECK-NEXT: [[ALL:%\w+]] = gemmir.pairproduct [[RA]], [[RB]], [[LOOP]]
// CHECK-NEXT: gemmir.lanesum [[ALL]] : vector<6x8xi32> to vector<2x3xi32>
