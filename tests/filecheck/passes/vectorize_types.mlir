// RUN: xdsl-opt %s --split-input-file -p 'gemmir-tile{loops=m,n sizes=32,16 over=blocks},gemmir-tile{loops=m,n sizes=16,8 over=warps},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=64},gemmir-promote{operand=a to=shared layout="swizzle:32"},gemmir-promote{operand=b to=shared layout="panel:24"},gemmir-vectorize{with=mma width=4}' | filecheck %s

func.func @unsigned(%a: memref<32x64xui8>, %b: memref<64x16xui8>, %c: memref<32x16xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<32x64xui8>, memref<64x16xui8>, memref<32x16xi32>
  func.return
}

// arith has no zero without a sign, so that copies pad with one that is cast.

// CHECK:      [[ZERO:%\w+]] = arith.constant 0 : i8
// CHECK:      [[PAD:%\w+]] = builtin.unrealized_conversion_cast [[ZERO]] : i8 to ui8
// CHECK:      vector.transfer_read {{.*}}, [[PAD]] {{.*}}, vector<1x4xui8>
// CHECK:      [[A:%\w+]] = nvgpu.ldmatrix "a" {{.*}} -> vector<16x32xui8>
// CHECK-NEXT: [[B:%\w+]] = nvgpu.ldmatrix "b" {{.*}} -> vector<32x8xui8>
// CHECK-NEXT: nvgpu.mma.sync [[A]], [[B]], {{%\w+}} shape [16 : i64, 8 : i64, 32 : i64] : vector<16x32xui8>, vector<32x8xui8>, vector<16x8xi32>

// -----

func.func @rounded(%a: memref<32x64xf32>, %b: memref<64x16xf32>, %c: memref<32x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 precision <tf32>
    : memref<32x64xf32>, memref<64x16xf32>, memref<32x16xf32>
  func.return
}

// CHECK: nvgpu.mma.sync {{.*}} shape [16 : i64, 8 : i64, 8 : i64] tf32Enabled : vector<16x8xf32>, vector<8x8xf32>, vector<16x8xf32>

// -----

func.func @doubles(%a: memref<32x64xf64>, %b: memref<64x16xf64>, %c: memref<32x16xf64>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<32x64xf64>, memref<64x16xf64>, memref<32x16xf64>
  func.return
}

// CHECK: nvgpu.mma.sync {{.*}} shape [8 : i64, 8 : i64, 4 : i64] : vector<16x8xf64>, vector<8x8xf64>, vector<16x8xf64>
