// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=64,64 over=blocks},gemmir-persist{blocks=3},gemmir-tile{loops=m sizes=64 over=warpgroups},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=64},gemmir-promote{operand=a to=shared layout="swizzle:128"},gemmir-promote{operand=b to=shared layout="swizzle:128"},gemmir-promote{operand=c to=shared layout="swizzle:128"},gemmir-pipeline{loop=k stages=4 with=tma specialize=true pingpong=true}' | filecheck %s

func.func @gemm(%a: memref<256x192xbf16>, %b: memref<192x128xbf16, strided<[1, 192]>>, %c: memref<256x128xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<256x192xbf16>, memref<192x128xbf16, strided<[1, 192]>>, memref<256x128xf32>
  func.return
}

// One warpgroup reads a stage. C goes out through memory of each.

// CHECK:      %c_shared = memref.alloca() : memref<128x64xf32, #gemmir.swizzle<1, 32, 4096, 4>, #gemmir.space<shared>>
// CHECK:      %empty = nvgpu.mbarrier.create arrivals 4 : i64 : memref<4xi64, #gemmir.space<shared>>
// CHECK-NEXT: %turn = nvgpu.mbarrier.create arrivals 4 : i64 : memref<2xi64, #gemmir.space<shared>>
// CHECK:      nvgpu.warp_specialize warpgroups 2 : i64

// The producer fills stages for every tile; a warpgroup takes every other one, from its own on.

// CHECK:      scf.for %tile = %block to [[TILES:%\w+]] step [[THREE:%\w+]] iter_args
// CHECK:      } consumers {
// CHECK-NEXT: ^bb0(%warpgroup: index):
// CHECK:      [[FIRST:%\w+]] = arith.addi %block, {{%\w+}} : index
// CHECK-NEXT: scf.for %tile_1 = [[FIRST]] to [[TILES]] step {{%\w+}} iter_args(%stage_2 = {{%\w+}}, %parity_2 = {{%\w+}}, %turn_1 = {{%\w+}}) -> (i32, i32, i32) {

// It waits for its turn before the loop over k, and gives the next one behind it.

// CHECK:      nvgpu.mbarrier.wait %turn[{{%\w+}}] parity %turn_1
// CHECK:      scf.for %p_1
// CHECK:      } {gemmir.dim = "k"}
// CHECK:      nvgpu.mbarrier.arrive %turn[{{%\w+}}]
// CHECK:      nvgpu.mbarrier.arrive %empty
