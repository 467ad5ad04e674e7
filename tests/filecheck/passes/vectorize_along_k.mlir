// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8 along=k}' | filecheck %s

func.func @gemm(%a: memref<2x21xf32>, %b: memref<21x3xf32, strided<[1, 21]>>, %c: memref<2x3xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<2x21xf32>, memref<21x3xf32, strided<[1, 21]>>, memref<2x3xf32>
  func.return
}

// Whole vectors along k in a loop, columns of B as rows; then what is left, with zeros behind it.

// CHECK:      [[LOOP:%\w+]] = scf.for [[K:%\w+]] = {{%\w+}} to {{%\w+}} step {{%\w+}} iter_args([[ACC:%\w+]] = {{%\w+}}) -> (vector<6x8xf32>)
// CHECK-NEXT:   [[A:%\w+]] = vector.transfer_read %a[{{%\w+}}, [[K]]], {{%\w+}} {in_bounds = [true, true]} : memref<2x21xf32>, vector<2x8xf32>
// CHECK-NEXT:   [[B:%\w+]] = vector.transfer_read %b{{\[}}[[K]], {{%\w+}}], {{.*}}permutation_map = affine_map<(d0, d1) -> (d1, d0)>{{.*}} vector<3x8xf32>
// CHECK-NEXT:   [[SUM:%\w+]] = gemmir.pairproduct [[A]], [[B]], [[ACC]]
// CHECK-NEXT:   scf.yield [[SUM]]
// CHECK:      [[RA:%\w+]] = vector.transfer_read %a{{.*}} {in_bounds = [true, false]}
// CHECK-NEXT: [[RB:%\w+]] = vector.transfer_read %b{{.*}}in_bounds = [true, false]
// CHECK-NEXT: [[ALL:%\w+]] = gemmir.pairproduct [[RA]], [[RB]], [[LOOP]]
// CHECK-NEXT: gemmir.lanesum [[ALL]] : vector<6x8xf32> to vector<2x3xf32>
