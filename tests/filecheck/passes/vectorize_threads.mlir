// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=8,8 over=blocks},gemmir-tile{loops=m,n sizes=1,1 over=threads},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=1}' | filecheck %s

// A thread of a GPU widens elements of 16 bits where it reads them.

func.func @naive(%a: memref<16x5xbf16>, %b: memref<5x16xbf16>, %c: memref<16x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<16x5xbf16>, memref<5x16xbf16>, memref<16x16xf32>
  func.return
}

// CHECK:      [[A:%\w+]] = vector.transfer_read {{.*}}, vector<1x1xbf16>
// CHECK-NEXT: [[AW:%\w+]] = arith.extf [[A]] : vector<1x1xbf16> to vector<1x1xf32>
// CHECK-NEXT: [[B:%\w+]] = vector.transfer_read {{.*}}, vector<1x1xbf16>
// CHECK-NEXT: [[BW:%\w+]] = arith.extf [[B]] : vector<1x1xbf16> to vector<1x1xf32>
// CHECK-NEXT: gemmir.outerproduct [[AW]], [[BW]], {{%\w+}}
