// RUN: xdsl-opt %s -p gemmir-swap-operands | filecheck %s

func.func @gemm(%a: memref<3x5xf32>, %b: memref<8x5xf32>, %bias: memref<8xf32>, %c: memref<3x8xf32>) {
  %b_t = memref.reinterpret_cast %b to offset: [0], sizes: [5, 8], strides: [1, 5]
    : memref<8x5xf32> to memref<5x8xf32, strided<[1, 5]>>
  gemmir.gemm %a, %b_t, %c alpha 2.0 : f64 beta 0.0 : f64
    : memref<3x5xf32>, memref<5x8xf32, strided<[1, 5]>>, memref<3x8xf32>
  %bias_rows = memref.reinterpret_cast %bias to offset: [0], sizes: [3, 8], strides: [0, 1]
    : memref<8xf32> to memref<3x8xf32, strided<[0, 1]>>
  gemmir.epilogue ins(%bias_rows : memref<3x8xf32, strided<[0, 1]>>) outs(%c : memref<3x8xf32>) {
  ^bb0(%x: f32, %y: f32):
    %sum = arith.addf %x, %y : f32
    gemmir.yield %sum : f32
  }
  func.return
}

// B is stored transposed, so that it is read as it lies; of A, C and the bias there is one view each.

// CHECK:      func.func @gemm
// CHECK-NEXT: [[A:%\w+]] = memref.reinterpret_cast %a to offset: [0], sizes: [5, 3], strides: [1, 5]
// CHECK-NEXT: [[C:%\w+]] = memref.reinterpret_cast %c to offset: [0], sizes: [8, 3], strides: [1, 8]
// CHECK-NEXT: [[BIAS:%\w+]] = memref.reinterpret_cast %bias to offset: [0], sizes: [8, 3], strides: [1, 0]
// CHECK-NEXT: gemmir.gemm %b, [[A]], [[C]] alpha 2.000000e+00 : f64 beta 0.000000e+00 : f64
// CHECK-NEXT: gemmir.epilogue ins([[BIAS]] : {{.*}}) outs([[C]] : {{.*}}) {
