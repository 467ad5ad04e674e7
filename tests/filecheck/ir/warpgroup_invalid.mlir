// RUN: xdsl-opt %s --split-input-file --verify-diagnostics | filecheck %s

// What ops of warpgroups refuse.

func.func @f(%a: memref<64xbf16>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: boxes memref<64x64xbf16,

// -----

func.func @f(%a: memref<64x64xf16>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: boxes memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> of memref<64x64xf16>

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.space<shared>>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xbf16, #gemmir.space<shared>> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: boxes memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> of memref<64x64xbf16, #gemmir.space<shared>>

// -----

func.func @f(%a: memref<64x64xbf16>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: {{.*}}is not in shared memory

// -----

func.func @f(%a: memref<64x64xbf16, strided<[128, 2]>>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xbf16, strided<[128, 2]>> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: {{.*}}no dimension of memref<64x64xbf16, strided<[128, 2]>> is adjacent

// -----

func.func @f(%a: memref<512x64xbf16>) {
  %m = nvgpu.tma.create.descriptor %a : memref<512x64xbf16> -> !nvgpu.tensormap<memref<512x64xbf16, #gemmir.swizzle<1, 64, 32768, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: extents (512, 64) are not 1 to 256

// -----

func.func @f(%a: memref<64x128xbf16>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x128xbf16> -> !nvgpu.tensormap<memref<64x128xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: {{.*}}is not one panel along 1

// -----

func.func @f(%a: memref<64x64xbf16>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<0, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: {{.*}}is not one panel along 1

// -----

func.func @f(%a: memref<64x64xbf16, strided<[1, 64]>>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xbf16, strided<[1, 64]>> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.create.descriptor: {{.*}}is neither swizzled nor dense

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi64, #gemmir.space<shared>>, %n: i32, %t: memref<32x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<32x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.tma.async.load: memref<32x64xbf16

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi64, #gemmir.space<shared>>, %n: i32, %t: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>>
  func.return
}
// CHECK: is not in shared memory

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi64, #gemmir.space<shared>>, %n: i32, %t: memref<64x64xbf16, #gemmir.swizzle<1, 32, 2048, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 32, 2048, 8>, #gemmir.space<shared>>
  func.return
}
// CHECK: is swizzled otherwise than

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi32, #gemmir.space<shared>>, %n: i32, %t: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi32, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
  func.return
}
// CHECK: memref<2xi32, #gemmir.space<shared>> are no barriers in shared memory

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi64>, %n: i32, %t: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
  func.return
}
// CHECK: memref<2xi64> are no barriers in shared memory

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi64, #gemmir.space<shared>>, %n: i32, %t: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t multicast 0 : i64 : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.tma.async.load: multicast 0

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %b: memref<2xi64, #gemmir.space<shared>>, %n: i32, %t: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.load %m[%i, %i], %b[%n] to %t multicast 256 : i64 : !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, memref<2xi64, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.tma.async.load: multicast 256

// -----

func.func @f(%a: memref<64x64xbf16>, %i: index, %t: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  %m = nvgpu.tma.create.descriptor %a : memref<64x64xbf16> -> !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  nvgpu.tma.async.store %t to %m[%i, %i, %i] : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> to !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.async.store: 3 indices of memref<64x64xbf16>

// -----

func.func @f(%m: !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>, %i: index, %t: memref<64x32xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>) {
  nvgpu.tma.async.store %t to %m[%i, %i] : memref<64x32xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>> to !nvgpu.tensormap<memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>>
  func.return
}
// CHECK: nvgpu.tma.async.store: memref<64x32xbf16

// -----

func.func @f() {
  nvgpu.tma.store_wait groups -1 : i64
  func.return
}
// CHECK: nvgpu.tma.store_wait: groups -1

// -----

func.func @f() {
  %b = nvgpu.mbarrier.create arrivals 0 : i64 : memref<2xi64, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.mbarrier.create: arrivals 0

// -----

func.func @f() {
  %b = nvgpu.mbarrier.create arrivals 1 : i64 : memref<2xi64>
  func.return
}
// CHECK: nvgpu.mbarrier.create: memref<2xi64> are no barriers in shared memory

// -----

func.func @f(%b: memref<2xi64, #gemmir.space<shared>>, %n: i32) {
  nvgpu.mbarrier.arrive %b[%n] cluster 1 : i64 : memref<2xi64, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.mbarrier.arrive: cluster 1

// -----

func.func @f(%b: memref<2xi64, #gemmir.space<shared>>, %n: i32) {
  nvgpu.mbarrier.arrive %b[%n] cluster 9 : i64 : memref<2xi64, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.mbarrier.arrive: cluster 9

// -----

func.func @f(%b: memref<2xi64, #gemmir.space<shared>>, %n: i32) {
  nvgpu.mbarrier.arrive.expect_tx %b[%n] bytes -1 : i64 : memref<2xi64, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.mbarrier.arrive.expect_tx: -1 bytes

// -----

func.func @f(%b: memref<2xi64, #gemmir.space<shared>>, %n: i32) {
  nvgpu.mbarrier.arrive.expect_tx %b[%n] bytes 1048576 : i64 : memref<2xi64, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.mbarrier.arrive.expect_tx: 1048576 bytes

// -----

func.func @f(%b: memref<2x2xi64, #gemmir.space<shared>>, %n: i32) {
  nvgpu.mbarrier.wait %b[%n] parity %n : memref<2x2xi64, #gemmir.space<shared>>
  func.return
}
// CHECK: nvgpu.mbarrier.wait: memref<2x2xi64, #gemmir.space<shared>> are no barriers in shared memory

// -----

func.func @f(%a: memref<64xbf16, #gemmir.space<shared>>, %b: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64xbf16, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: memref<64xbf16, #gemmir.space<shared>> by memref<64x64xbf16

// -----

func.func @f(%a: memref<64x32xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64x32xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: memref<64x32xbf16

// -----

func.func @f(%a: memref<32x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<32x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<32x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<32x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: 32 x 64 is not made of 64 rows and columns in steps of 8 to 256

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x264xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x264xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x264xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x264xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: 64 x 264 is not made of 64 rows and columns in steps of 8 to 256

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>>, %b: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: {{.*}}are not both in shared memory

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x64xbf16, #gemmir.space<shared>>, %s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.space<shared>>, vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: {{.*}}are not both swizzled

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x64xf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: memref<64x64xbf16

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x64xbf16>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xbf16>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: {{.*}}is not summed in vector<64x64xbf16>

// -----

func.func @f(%a: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %b: memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, %s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.mma %a, %b, %s precision <tf32> : memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 4096, 8>, #gemmir.space<shared>>, vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.mma: precision tf32 is for f32, not for bf16

// -----

func.func @f(%s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.wait groups 8 : i64 %s : vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.wait: groups 8

// -----

func.func @f(%s: vector<128x64xf32>) {
  %r = nvgpu.warpgroup.slice %s row 32 : i64 column 0 : i64 : vector<128x64xf32> -> vector<64x64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.slice: 64 from 32 on of 128

// -----

func.func @f(%s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.slice %s row 0 : i64 column 4 : i64 : vector<64x64xf32> -> vector<64x8xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.slice: 8 from 4 on of 64

// -----

func.func @f(%s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.slice %s row 0 : i64 column 56 : i64 : vector<64x64xf32> -> vector<64x16xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.slice: 16 from 56 on of 64

// -----

func.func @f(%s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.slice %s row 0 : i64 column 0 : i64 : vector<64x64xf32> -> vector<64x64xi32>
  func.return
}
// CHECK: nvgpu.warpgroup.slice: vector<64x64xi32> of vector<64x64xf32>

// -----

func.func @f(%s: vector<64x64xf32>) {
  %r = nvgpu.warpgroup.slice %s row 0 : i64 column 0 : i64 : vector<64x64xf32> -> vector<64xf32>
  func.return
}
// CHECK: nvgpu.warpgroup.slice: vector<64xf32> of vector<64x64xf32>

// -----

func.func @f() {
  nvgpu.warp_specialize warpgroups 0 : i64 registers 40 : i64, 232 : i64 producer {
    gemmir.yield
  } consumers {
  ^bb0(%w: index):
    gemmir.yield
  }
  func.return
}
// CHECK: nvgpu.warp_specialize: 0 warpgroups

// -----

func.func @f() {
  nvgpu.warp_specialize warpgroups 2 : i64 registers 42 : i64, 232 : i64 producer {
    gemmir.yield
  } consumers {
  ^bb0(%w: index):
    gemmir.yield
  }
  func.return
}
// CHECK: nvgpu.warp_specialize: 42 registers are no multiple of 8 from 24 to 256

// -----

func.func @f() {
  nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 264 : i64 producer {
    gemmir.yield
  } consumers {
  ^bb0(%w: index):
    gemmir.yield
  }
  func.return
}
// CHECK: nvgpu.warp_specialize: 264 registers are no multiple of 8 from 24 to 256

// -----

func.func @f() {
  nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {
  ^bb0(%w: index):
    gemmir.yield
  } consumers {
  ^bb0(%v: index):
    gemmir.yield
  }
  func.return
}
// CHECK: nvgpu.warp_specialize: the producer takes nothing

// -----

func.func @f() {
  nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {
    gemmir.yield
  } consumers {
    gemmir.yield
  }
  func.return
}
// CHECK: nvgpu.warp_specialize: consumers take the number of their warpgroup

// -----

func.func @f() {
  nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {
    "test.termop"() : () -> ()
  } consumers {
  ^bb0(%w: index):
    gemmir.yield
  }
  func.return
}
// CHECK: nvgpu.warp_specialize: a region must end in gemmir.yield

// -----

func.func @f(%s: memref<4x8xbf16, #gemmir.space<shared>>, %t: memref<4x8xf16>) {
  gemmir.unpack %s into %t : memref<4x8xbf16, #gemmir.space<shared>> into memref<4x8xf16>
  func.return
}
// CHECK: gemmir.unpack: element types

// -----

func.func @f(%s: memref<4xbf16, #gemmir.space<shared>>, %t: memref<4x8xbf16>) {
  gemmir.unpack %s into %t : memref<4xbf16, #gemmir.space<shared>> into memref<4x8xbf16>
  func.return
}
// CHECK: gemmir.unpack: source and target must be matrices

// -----

func.func @f(%s: memref<4x8xbf16>, %t: memref<4x8xbf16>) {
  gemmir.unpack %s into %t : memref<4x8xbf16> into memref<4x8xbf16>
  func.return
}
// CHECK: gemmir.unpack: memref<4x8xbf16> into memref<4x8xbf16>

// -----

func.func @f(%s: memref<4x8xbf16, #gemmir.space<shared>>, %t: memref<5x8xbf16>) {
  gemmir.unpack %s into %t : memref<4x8xbf16, #gemmir.space<shared>> into memref<5x8xbf16>
  func.return
}
// CHECK: gemmir.unpack: memref<5x8xbf16> is larger than memref<4x8xbf16
