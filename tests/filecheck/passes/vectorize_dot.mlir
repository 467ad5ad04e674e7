// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l3 layout="panel:3x4"},gemmir-promote{operand=b to=l2 layout="panel:8x4"},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=dot width=8},gemmir-unroll{loop=k factor=2}' | filecheck %s

func.func @gemm(%a: memref<3x10xui8>, %b: memref<10x8xi8>, %c: memref<3x8xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<3x10xui8>, memref<10x8xi8>, memref<3x8xi32>
  func.return
}

// Panels have groups of 4 neighbours along k, the last of which is filled up with zeros, so that
// they are read whole: 12 of k are there. Two groups of k are 8.

// CHECK-LABEL: @gemm
// CHECK:      memref.alloc() {{.*}} : memref<3x12xui8, #gemmir.panel<0, 3, 36, 3, 4>, #gemmir.space<l3>>
// CHECK:      memref.alloc() {{.*}} : memref<12x8xi8, #gemmir.panel<1, 8, 96, 8, 4>, #gemmir.space<l2>>
// CHECK:      vector.transfer_read %a[{{.*}}in_bounds = [true, false]{{.*}}vector<3x4xui8>
// CHECK:      vector.transfer_read %b[{{.*}}in_bounds = [false, true]{{.*}}vector<4x8xi8>
// CHECK:      [[A:%\w+]] = vector.transfer_read {{.*}}in_bounds = [true, true]{{.*}}memref<3x12xui8, #gemmir.panel<0, 3, 36, 3, 4>, #gemmir.space<l3>>, vector<3x4xui8>
// CHECK-NEXT: [[B:%\w+]] = vector.transfer_read {{.*}}in_bounds = [true, true]{{.*}}vector<4x8xi8>
// CHECK-NEXT: gemmir.outerproduct [[A]], [[B]], {{%\w+}} : vector<3x4xui8>, vector<4x8xi8>, vector<3x8xi32>
