// RUN: xdsl-opt %s -p 'gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8},gemmir-unroll{loop=k factor=2},gemmir-widen-reads{rows=1 width=2}' | filecheck %s

func.func @gemm(%a: memref<4x5xf32>, %b: memref<5x8xf32>, %c: memref<4x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<4x5xf32>, memref<5x8xf32>, memref<4x8xf32>
  func.return
}

// Two elements of the last row are read at once, before the first step, and each step takes its
// own from them. The step that is left over reads its column as before.

// CHECK:      scf.for [[K:%\w+]] = {{%\w+}} to {{%\w+}} step
// CHECK-NEXT:   [[BLOCK:%\w+]] = vector.transfer_read %a[{{%\w+}}, [[K]]], {{.*}} : memref<4x5xf32>, vector<1x2xf32>
// CHECK-NEXT:   [[TOP:%\w+]] = vector.transfer_read %a[{{%\w+}}, [[K]]], {{.*}} : memref<4x5xf32>, vector<3x1xf32>
// CHECK-NEXT:   [[COLUMN:%\w+]] = gemmir.column [[TOP]], [[BLOCK]][0 : i64] : vector<3x1xf32>, vector<1x2xf32> to vector<4x1xf32>
// CHECK-NEXT:   vector.transfer_read %b{{\[}}[[K]]
// CHECK-NEXT:   gemmir.outerproduct [[COLUMN]]
// CHECK-NEXT:   [[K1:%\w+]] = arith.addi [[K]]
// CHECK-NEXT:   [[TOP1:%\w+]] = vector.transfer_read %a[{{%\w+}}, [[K1]]], {{.*}} : memref<4x5xf32>, vector<3x1xf32>
// CHECK-NEXT:   [[COLUMN1:%\w+]] = gemmir.column [[TOP1]], [[BLOCK]][1 : i64]
// CHECK-NEXT:   vector.transfer_read %b{{\[}}[[K1]]
// CHECK-NEXT:   gemmir.outerproduct [[COLUMN1]]
// CHECK:      scf.for
// CHECK-NEXT:   vector.transfer_read %a{{.*}} vector<4x1xf32>
