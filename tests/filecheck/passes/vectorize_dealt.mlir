// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=4 dealt=true}' | filecheck %s

func.func @gemm(%a: memref<2x5xf32>, %b: memref<5x16xf32>, %c: memref<2x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<2x5xf32>, memref<5x16xf32>, memref<2x16xf32>
  func.return
}

// A row of 16 is read at once, every 4th column goes to one vector, and sums get in order behind.

// CHECK:      [[S:%\w+]], [[T:%\w+]], [[U:%\w+]], [[V:%\w+]] = scf.for
// CHECK:        [[ROW:%\w+]] = vector.transfer_read %b[{{%\w+}}, {{%\w+}}], {{.*}} vector<1x16xf32>
// CHECK-NEXT:   [[P:%\w+]], [[Q:%\w+]], {{%\w+}}, {{%\w+}} = gemmir.deal [[ROW]] : vector<1x16xf32> to vector<1x4xf32>, vector<1x4xf32>, vector<1x4xf32>, vector<1x4xf32>
// CHECK-NEXT:   gemmir.outerproduct {{%\w+}}, [[P]]
// CHECK-NEXT:   gemmir.outerproduct {{%\w+}}, [[Q]]
// CHECK:      [[W:%\w+]], {{%\w+}}, {{%\w+}}, {{%\w+}} = gemmir.deal [[S]], [[T]], [[U]], [[V]]
// CHECK-NEXT: vector.transfer_write [[W]]
