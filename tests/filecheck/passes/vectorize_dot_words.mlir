// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l2 layout="panel:1" as=i16},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=dot width=8 along=k}' | filecheck %s

func.func @gemm(%a: memref<2x32xi8>, %b: memref<32x3xui8, strided<[1, 32]>>, %c: memref<2x3xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<2x32xi8>, memref<32x3xui8, strided<[1, 32]>>, memref<2x3xi32>
  func.return
}

// Bytes of B become i16 where they are read, as those of A are already: each lane takes 2.

// CHECK-LABEL: @gemm
// CHECK:      iter_args([[ACC:%\w+]] = {{%\w+}}) -> (vector<6x8xi32>)
// CHECK-NEXT:   [[A:%\w+]] = vector.transfer_read {{.*}}vector<2x16xi16>
// CHECK-NEXT:   [[B:%\w+]] = vector.transfer_read {{.*}}vector<3x16xui8>
// CHECK-NEXT:   [[WIDE:%\w+]] = gemmir.extend [[B]] {{.*}}vector<3x16xi16>
// CHECK-NEXT:   gemmir.pairproduct [[A]], [[WIDE]], [[ACC]] : vector<2x16xi16>, vector<3x16xi16>, vector<6x8xi32>
