// RUN: xdsl-opt %s -p 'gemmir-promote{operand=b to=l2 layout="panel:8" as=f32},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8}' | filecheck %s --check-prefix=PACK
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=k sizes=4},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8}' | filecheck %s --check-prefix=READ

func.func @weights(%a: memref<1x8xf32>, %b: memref<8x8xi4>, %s: memref<2x1x1x8xf32, strided<[8, 0, 0, 1]>>, %c: memref<1x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    scales(%s : memref<2x1x1x8xf32, strided<[8, 0, 0, 1]>>) depth 4 : i64
    : memref<1x8xf32>, memref<8x8xi4>, memref<1x8xf32>
  func.return
}

// Copied into panels, elements are made floats and have their scales.

// PACK-LABEL: @weights
// PACK:      [[GOT:%\w+]] = vector.transfer_read %b{{.*}}vector<1x8xi4>
// PACK-NEXT: [[FLOAT:%\w+]] = gemmir.extend [[GOT]] : vector<1x8xi4> to vector<1x8xf32>
// PACK-NEXT: [[BLOCK:%\w+]] = arith.divui
// PACK-NEXT: [[ROW:%\w+]] = memref.subview %s{{.}}[[BLOCK]], 0, 0, 0] [1, 1, 1, 8]
// PACK-NEXT: [[SCALE:%\w+]] = vector.transfer_read [[ROW]]
// PACK-NEXT: [[MADE:%\w+]] = arith.mulf [[FLOAT]], [[SCALE]] : vector<1x8xf32>
// PACK:      vector.transfer_write [[MADE]]
// PACK-NOT:  exponent

// Read where they lie, they are summed times a power of two, and each slice then has its scales.

// READ-LABEL: @weights
// READ:      [[GOT:%\w+]] = vector.transfer_read {{.*}}vector<1x8xi4>
// READ-NEXT: [[FLOAT:%\w+]] = gemmir.extend [[GOT]] exponent 28 : i64 : vector<1x8xi4> to vector<1x8xf32>
// READ-NEXT: gemmir.outerproduct {{%\w+}}, [[FLOAT]]
// READ:      [[SUM:%\w+]] = arith.mulf
// READ:      [[SCALE:%\w+]] = vector.transfer_read {{.*}}vector<1x8xf32>
// READ-NEXT: arith.mulf [[SUM]], [[SCALE]] : vector<1x8xf32>
