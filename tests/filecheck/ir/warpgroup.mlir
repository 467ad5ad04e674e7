// RUN: xdsl-opt %s | xdsl-opt | filecheck %s

// Every op of warpgroups, as it is printed and read.

// CHECK-LABEL: func.func @ops
func.func @ops(%a: memref<3x100x64xbf16>, %c: memref<100x64xbf16>, %d: memref<60x64xbf16>, %tile: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %barriers: memref<2xi64, #gemmir.space<shared>>, %sum: vector<64x64xf32>) {
  %i = arith.constant 0 : index
  %n = arith.constant 1 : i32

  // CHECK:      %a_map = nvgpu.tma.create.descriptor %a : memref<3x100x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  %a_map = nvgpu.tma.create.descriptor %a : memref<3x100x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  // CHECK-NEXT: %c_map = nvgpu.tma.create.descriptor %c : memref<100x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  %c_map = nvgpu.tma.create.descriptor %c : memref<100x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  // CHECK-NEXT: %full = nvgpu.mbarrier.create arrivals 1 : i64 : memref<2xi64, #gemmir.space<shared>>
  %full = nvgpu.mbarrier.create arrivals 1 : i64 : memref<2xi64, #gemmir.space<shared>>
  // CHECK-NEXT: nvgpu.cluster.barrier
  nvgpu.cluster.barrier

  // CHECK-NEXT: nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {
  nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {
    // CHECK-NEXT: nvgpu.mbarrier.arrive.expect_tx %full[%n] bytes 16384 : i64 : memref<2xi64, #gemmir.space<shared>>
    nvgpu.mbarrier.arrive.expect_tx %full[%n] bytes 16384 : i64 : memref<2xi64, #gemmir.space<shared>>
    // CHECK-NEXT: nvgpu.tma.async.load %a_map[%i, %i, %i], %full[%n] to %tile : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
    nvgpu.tma.async.load %a_map[%i, %i, %i], %full[%n] to %tile : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
    // CHECK-NEXT: nvgpu.tma.async.load %c_map[%i, %i], %full[%n] to %tile multicast 3 : i64 : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
    nvgpu.tma.async.load %c_map[%i, %i], %full[%n] to %tile multicast 3 : i64 : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
    // CHECK-NEXT: gemmir.yield
    gemmir.yield
  // CHECK-NEXT: } consumers {
  } consumers {
  // CHECK-NEXT: ^bb0(%warpgroup: index):
  ^bb0(%warpgroup: index):
    // CHECK-NEXT: nvgpu.mbarrier.wait %full[%n] parity %n : memref<2xi64, #gemmir.space<shared>>
    nvgpu.mbarrier.wait %full[%n] parity %n : memref<2xi64, #gemmir.space<shared>>
    // CHECK-NEXT: %begun = nvgpu.warpgroup.mma %tile, %tile, %sum : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
    %begun = nvgpu.warpgroup.mma %tile, %tile, %sum : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
    // CHECK-NEXT: %done = nvgpu.warpgroup.wait groups 0 : i64 %begun : vector<64x64xf32>
    %done = nvgpu.warpgroup.wait groups 0 : i64 %begun : vector<64x64xf32>
    // CHECK-NEXT: nvgpu.mbarrier.arrive %full[%n] : memref<2xi64, #gemmir.space<shared>>
    nvgpu.mbarrier.arrive %full[%n] : memref<2xi64, #gemmir.space<shared>>
    // CHECK-NEXT: nvgpu.mbarrier.arrive %full[%n] cluster 2 : i64 : memref<2xi64, #gemmir.space<shared>>
    nvgpu.mbarrier.arrive %full[%n] cluster 2 : i64 : memref<2xi64, #gemmir.space<shared>>
    // CHECK-NEXT: %part = nvgpu.warpgroup.slice %done row 0 : i64 column 8 : i64 : vector<64x64xf32> -> vector<64x16xf32>
    %part = nvgpu.warpgroup.slice %done row 0 : i64 column 8 : i64 : vector<64x64xf32> -> vector<64x16xf32>
    // CHECK-NEXT: nvgpu.fence.proxy
    nvgpu.fence.proxy
    // CHECK-NEXT: nvgpu.warpgroup.barrier
    nvgpu.warpgroup.barrier
    // CHECK-NEXT: nvgpu.tma.async.store %tile to %c_map[%i, %i] : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> to !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
    nvgpu.tma.async.store %tile to %c_map[%i, %i] : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> to !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
    // CHECK-NEXT: nvgpu.tma.store_wait groups 0 : i64
    nvgpu.tma.store_wait groups 0 : i64
    // CHECK-NEXT: gemmir.unpack %tile into %d : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> into memref<60x64xbf16>
    gemmir.unpack %tile into %d : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> into memref<60x64xbf16>
    gemmir.yield
  }
  func.return
}

// Factors of f32 are those of tf32; an array that is adjacent along its rows has boxes that are, too.

// CHECK-LABEL: func.func @narrow
func.func @narrow(%a: memref<64x32xf32, #gemmir.swizzle<1, 32, 2048, 4>, #gemmir.space<shared>>, %b: memref<32x8xf32, #gemmir.swizzle<0, 32, 256, 4>, #gemmir.space<shared>>, %sum: vector<64x8xf32>, %t: memref<32x8xf32, strided<[1, 32]>>) {
  // CHECK: nvgpu.warpgroup.mma {{%\w+}}, {{%\w+}}, {{%\w+}} precision <tf32> : memref<64x32xf32, #gemmir.swizzle<1, 32, 2048, 4>, #gemmir.space<shared>>
  %next = nvgpu.warpgroup.mma %a, %b, %sum precision <tf32> : memref<64x32xf32, #gemmir.swizzle<1, 32, 2048, 4>, #gemmir.space<shared>>, memref<32x8xf32, #gemmir.swizzle<0, 32, 256, 4>, #gemmir.space<shared>>, vector<64x8xf32>
  // CHECK: nvgpu.tma.create.descriptor %t
  %map = nvgpu.tma.create.descriptor %t : memref<32x8xf32, strided<[1, 32]>> -> !nvgpu.tensormap<memref<32x8xf32, #gemmir.swizzle<0, 32, 256, 4>, #gemmir.space<shared>>>
  func.return
}
