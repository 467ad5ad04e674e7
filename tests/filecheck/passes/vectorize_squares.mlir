// RUN: xdsl-opt %s -p 'gemmir-promote{operand=b to=l2 layout="panel:1"},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8 along=k}' | filecheck %s

func.func @gemm(%a: memref<2x21xf32>, %b: memref<21x3xf32>, %c: memref<2x3xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<2x21xf32>, memref<21x3xf32>, memref<2x3xf32>
  func.return
}

// Eight rows of B go into its three columns at once; then the five that are left.

// CHECK:      scf.for [[K:%\w+]] = {{%\w+}} to {{%\w+}} step {{%\w+}} {
// CHECK-NEXT:   [[T:%\w+]] = memref.subview {{.*}} #gemmir.space<l2>> to memref<21x3xf32, strided<[1, 21]>, #gemmir.space<l2>>
// CHECK-NEXT:   [[X:%\w+]] = vector.transfer_read %b{{\[}}[[K]], {{%\w+}}], {{%\w+}} {in_bounds = [true, false]} : memref<21x3xf32>, vector<8x4xf32>
// CHECK-NEXT:   vector.transfer_write [[X]], [[T]]{{\[}}[[K]], {{%\w+}}] {in_bounds = [true, false]}
// CHECK-NEXT: } {gemmir.dim = "k"}
// CHECK:      [[Y:%\w+]] = vector.transfer_read %b{{.*}} vector<5x4xf32>
// CHECK-NEXT: vector.transfer_write [[Y]]
// CHECK:      gemmir.pairproduct
