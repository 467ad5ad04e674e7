// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=256,64 over=clusters},gemmir-tile{loops=m sizes=128 over=blocks},gemmir-persist{blocks=1},gemmir-tile{loops=m sizes=64 over=warpgroups},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=64},gemmir-promote{operand=a to=shared layout="swizzle:128"},gemmir-promote{operand=b to=shared layout="swizzle:128"},gemmir-pipeline{loop=k stages=3 with=tma specialize=true}' | filecheck %s

func.func @gemm(%a: memref<256x192xbf16>, %b: memref<192x128xbf16, strided<[1, 192]>>, %c: memref<256x128xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<256x192xbf16>, memref<192x128xbf16, strided<[1, 192]>>, memref<256x128xf32>
  func.return
}

// A box of A is what a block needs; of B each of two blocks copies half, which is adjacent along k.

// CHECK-DAG: %a_map = nvgpu.tma.create.descriptor %a : memref<256x192xbf16> -> !nvgpu.tensormap<memref<128x64xbf16, #gemmir.swizzle<1, 64, 8192, 8>, #gemmir.space<shared>>>
// CHECK-DAG: %b_map = nvgpu.tma.create.descriptor %b : {{.*}} -> !nvgpu.tensormap<memref<64x32xbf16, #gemmir.swizzle<0, 64, 2048, 8>, #gemmir.space<shared>>>

// Three stages lie one behind the other. Four warps of two warpgroups in two blocks release one.

// CHECK:      gemmir.forall %cluster = {{.*}} over clusters {
// CHECK-NEXT: gemmir.forall %i = {{.*}} over blocks {
// CHECK-NEXT: %b_shared = memref.alloca() : memref<64x192xbf16, #gemmir.swizzle<0, 64, 12288, 8>, #gemmir.space<shared>>
// CHECK-NEXT: %a_shared = memref.alloca() : memref<384x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>
// CHECK-NEXT: %full = nvgpu.mbarrier.create arrivals 1 : i64 : memref<3xi64, #gemmir.space<shared>>
// CHECK-NEXT: %empty = nvgpu.mbarrier.create arrivals 16 : i64 : memref<3xi64, #gemmir.space<shared>>
// CHECK-NEXT: nvgpu.cluster.barrier
// CHECK-NEXT: nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {

// The producer has the loops, and of their bodies what leads to a copy. It expects all of B.

// CHECK:      scf.for %tile = %cluster to {{.*}} iter_args(%stage = [[ZERO:%\w+]], %parity = [[ONE:%\w+]]) -> (i32, i32) {
// CHECK:      scf.for %p = {{.*}} iter_args(%stage_1 = %stage, %parity_1 = %parity) -> (i32, i32) {
// CHECK-NEXT: nvgpu.mbarrier.wait %empty[%stage_1] parity %parity_1
// CHECK-NEXT: nvgpu.mbarrier.arrive.expect_tx %full[%stage_1] bytes 24576 : i64
// CHECK:      nvgpu.tma.async.load %a_map[%i, %p], %full[%stage_1] to %a_shared_1 : !nvgpu
// CHECK:      [[RANK:%\w+]] = arith.divui %i, {{%\w+}} : index
// CHECK-NEXT: [[PART:%\w+]] = arith.muli [[RANK]], {{%\w+}} : index
// CHECK-NEXT: %b_shared_2 = memref.subview %b_shared_1[0, [[PART]]] [64, 32]
// CHECK-NEXT: [[AT:%\w+]] = arith.addi %j, [[PART]] : index
// CHECK-NEXT: nvgpu.tma.async.load %b_map[%p, [[AT]]], %full[%stage_1] to %b_shared_2 multicast 3 : i64

// Behind the last stage comes the first, in the next phase.

// CHECK-NEXT: [[AFTER:%\w+]] = arith.addi %stage_1, [[ONE]] : i32
// CHECK-NEXT: [[WRAPS:%\w+]] = arith.cmpi eq, [[AFTER]], {{%\w+}} : i32
// CHECK-NEXT: [[NEXT:%\w+]] = arith.select [[WRAPS]], [[ZERO]], [[AFTER]] : i32
// CHECK-NEXT: [[TURN:%\w+]] = arith.extui [[WRAPS]] : i1 to i32
// CHECK-NEXT: [[PHASE:%\w+]] = arith.xori %parity_1, [[TURN]] : i32
// CHECK-NEXT: scf.yield [[NEXT]], [[PHASE]] : i32, i32
// CHECK-NOT:  gemmir.epilogue

// Consumers wait for what is full, and release the stage before that in which they multiply.

// CHECK:      } consumers {
// CHECK-NEXT: ^bb0(%warpgroup: index):
// CHECK-NEXT: scf.for %tile_1 = %cluster to {{.*}} iter_args(%stage_2 = [[ZERO]], %parity_2 = [[ZERO]]) -> (i32, i32) {
// CHECK:      %i_1 = arith.muli %warpgroup, {{%\w+}} : index
// CHECK:      [[LOOP:%\w+]], {{%\w+}}, [[LAST:%\w+]] = scf.for %p_1 = {{.*}} iter_args(%stage_3 = %stage_2, %parity_3 = %parity_2, %before = %stage_2) -> (i32, i32, i32) {
// CHECK-NEXT: nvgpu.mbarrier.wait %full[%stage_3] parity %parity_3
// CHECK-NOT:  gemmir.barrier
// CHECK:      gemmir.gemm
// CHECK-NEXT: [[LATER:%\w+]] = arith.cmpi ne, %p_1, %0 : index
// CHECK-NEXT: scf.if [[LATER]] {
// CHECK-NEXT:   nvgpu.mbarrier.arrive %empty[%before] cluster 2 : i64
// CHECK:      scf.yield {{%\w+}}, {{%\w+}}, %stage_3 : i32, i32, i32
// CHECK:      nvgpu.mbarrier.arrive %empty[[[LAST]]] cluster 2 : i64
// CHECK-NEXT: gemmir.epilogue
// CHECK:      nvgpu.cluster.barrier
// CHECK-NEXT: } {gemmir.dim = "m"}
