// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8},gemmir-unroll{loop=k factor=2},gemmir-peel{loop=k}' | filecheck %s

func.func @gemm(%a: memref<4x7xf32>, %b: memref<7x8xf32>, %c: memref<4x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<4x7xf32>, memref<7x8xf32>, memref<4x8xf32>
  func.return
}

// The first iteration stands before the loop, which goes on with its sums from the next one. The
// loop over the step that is left over begins with sums, and stays.

// CHECK-DAG:  [[ZERO:%\w+]] = arith.constant dense<-0.000000e+00> : vector<4x8xf32>
// CHECK-DAG:  [[TWO:%\w+]] = arith.constant 2 : index
// CHECK:      [[FIRST:%\w+]] = gemmir.outerproduct {{%\w+}}, {{%\w+}}, [[ZERO]]
// CHECK:      [[SECOND:%\w+]] = gemmir.outerproduct {{%\w+}}, {{%\w+}}, [[FIRST]]
// CHECK-NEXT: [[MAIN:%\w+]] = scf.for {{%\w+}} = [[TWO]] to {{%\w+}} step [[TWO]] iter_args({{%\w+}} = [[SECOND]])
// CHECK:      scf.for {{.*}} iter_args({{%\w+}} = [[MAIN]])
