// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8},gemmir-unroll{loop=k factor=2}' | filecheck %s

func.func @gemm(%a: memref<4x5xf32>, %b: memref<5x8xf32>, %c: memref<4x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<4x5xf32>, memref<5x8xf32>, memref<4x8xf32>
  func.return
}

// Two copies of the body for k = 0 .. 3, the second of which adds to the sum of the first, and a
// loop for what remains, which goes on with the same sum.

// CHECK:      [[EVEN:%\w+]] = arith.constant 4 : index
// CHECK:      [[SUM:%\w+]] = scf.for [[K:%\w+]] = {{%\w+}} to [[EVEN]] step {{%\w+}} iter_args([[ACC:%\w+]] = {{%\w+}})
// CHECK-NEXT:   vector.transfer_read %a[{{%\w+}}, [[K]]]
// CHECK-NEXT:   vector.transfer_read %b{{\[}}[[K]]
// CHECK-NEXT:   [[ONE:%\w+]] = gemmir.outerproduct {{%\w+}}, {{%\w+}}, [[ACC]]
// CHECK-NEXT:   [[K1:%\w+]] = arith.addi [[K]], {{%\w+}} : index
// CHECK-NEXT:   vector.transfer_read %a[{{%\w+}}, [[K1]]]
// CHECK-NEXT:   vector.transfer_read %b{{\[}}[[K1]]
// CHECK-NEXT:   [[TWO:%\w+]] = gemmir.outerproduct {{%\w+}}, {{%\w+}}, [[ONE]]
// CHECK-NEXT:   scf.yield [[TWO]]
// CHECK-NEXT: } {gemmir.dim = "k"}
// CHECK-NEXT: [[ALL:%\w+]] = scf.for {{%\w+}} = [[EVEN]] to {{%\w+}} step {{%\w+}} iter_args({{%\w+}} = [[SUM]])
// CHECK:      vector.transfer_write [[ALL]], %c
