// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=128,128 over=blocks},gemmir-tile{loops=m sizes=64 over=warpgroups},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=64},gemmir-fuse-epilogue,gemmir-promote{operand=c to=shared layout="swizzle:128"}' | filecheck %s --check-prefix=STAGED
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=128,128 over=blocks},gemmir-tile{loops=m sizes=64 over=warpgroups},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=64},gemmir-promote{operand=a to=shared layout="swizzle:128"},gemmir-promote{operand=b to=shared layout="swizzle:128"},gemmir-fuse-epilogue,gemmir-promote{operand=c to=shared layout="swizzle:128"},gemmir-pipeline{loop=k stages=3 with=tma specialize=true},gemmir-vectorize{with=wgmma}' | filecheck %s --check-prefix=WGMMA

func.func @gemm(%a: memref<256x192xbf16>, %b: memref<192x128xbf16, strided<[1, 192]>>, %bias: memref<128xbf16>, %c: memref<256x128xbf16>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<256x192xbf16>, memref<192x128xbf16, strided<[1, 192]>>, memref<256x128xbf16>
  %bias_rows = memref.reinterpret_cast %bias to offset: [0], sizes: [256, 128], strides: [0, 1]
    : memref<128xbf16> to memref<256x128xbf16, strided<[0, 1]>>
  gemmir.epilogue ins(%bias_rows : memref<256x128xbf16, strided<[0, 1]>>) outs(%c : memref<256x128xbf16>) {
  ^bb0(%x: bf16, %y: bf16):
    %sum = arith.addf %x, %y : bf16
    gemmir.yield %sum : bf16
  }
  func.return
}

// Two warpgroups have two panels of 64 columns each; the 64 x 128 tile of one is two pieces.

// STAGED:      %c_shared = memref.alloca() : memref<128x128xbf16, #gemmir.swizzle<1, 64, 8192, 8>, #gemmir.space<shared>>
// STAGED:      gemmir.forall [[I:%\w+]] = {{.*}} over warpgroups {
// STAGED:      [[NUMBER:%\w+]] = arith.divui [[I]], {{%\w+}} : index
// STAGED-NEXT: [[ROW:%\w+]] = arith.muli [[NUMBER]], {{%\w+}} : index
// STAGED-NEXT: [[SUM:%\w+]] = memref.subview %acc[0, 0] [64, 64]
// STAGED-NEXT: [[BIAS:%\w+]] = memref.subview %bias_rows_{{.*}}[0, 0] [64, 64]
// STAGED-NEXT: [[OUT:%\w+]] = memref.subview %c_{{.*}}[0, 0] [64, 64]
// STAGED-NEXT: [[ROOM:%\w+]] = memref.subview %c_shared[[[ROW]], 0] [64, 64]
// STAGED-NEXT: gemmir.epilogue ins([[SUM]], [[BIAS]] : {{.*}}) outs([[ROOM]] : {{.*}}) {
// STAGED:      gemmir.unpack [[ROOM]] into [[OUT]]
// STAGED:      memref.subview %acc[0, 64] [64, 64]
// STAGED:      memref.subview %c_shared[[[ROW]], 64] [64, 64]
// STAGED:      gemmir.epilogue
// STAGED:      gemmir.unpack
// STAGED-NOT:  gemmir.unpack

// A slice of k is one product, and one is under way while the next slice is awaited. A piece of the sum
// is written when its buffer has been read, and stored when all have written.

// WGMMA:      scf.for %p_1 = {{.*}} [[BEFORE:%\w+]] = %{{\w+}}) -> (i32, i32, i32, vector<64x128xf32>) {
// WGMMA:      [[BEGUN:%\w+]] = nvgpu.warpgroup.mma {{.*}} : memref<64x64xbf16, {{.*}}>, memref<64x128xbf16, {{.*}}>, vector<64x128xf32>
// WGMMA-NEXT: [[SUMMED:%\w+]] = nvgpu.warpgroup.wait groups 1 : i64 [[BEGUN]]
// WGMMA:      scf.yield {{.*}}, [[SUMMED]] : i32, i32, i32, vector<64x128xf32>
// WGMMA-NEXT: } {gemmir.dim = "k"}
// WGMMA-NEXT: [[TOTAL:%\w+]] = nvgpu.warpgroup.wait groups 0 : i64
// WGMMA-NEXT: nvgpu.mbarrier.arrive %empty
// WGMMA:      nvgpu.tma.store_wait groups 1 : i64
// WGMMA-NEXT: nvgpu.warpgroup.barrier
// WGMMA:      [[PIECE:%\w+]] = nvgpu.warpgroup.slice [[TOTAL]] row 0 : i64 column 0 : i64 : vector<64x128xf32> -> vector<64x64xf32>
// WGMMA:      vector.transfer_write {{.*}} {in_bounds = [true, true]} : vector<64x64xbf16>, memref<64x64xbf16, #gemmir.swizzle<1, 64, 8192, 8>, #gemmir.space<shared>>
// WGMMA-NEXT: nvgpu.fence.proxy
// WGMMA-NEXT: nvgpu.warpgroup.barrier
// WGMMA:      nvgpu.tma.async.store
// WGMMA:      nvgpu.warpgroup.slice [[TOTAL]] row 0 : i64 column 64 : i64
// WGMMA:      nvgpu.tma.async.store
// WGMMA-NEXT: nvgpu.tma.store_wait groups 0 : i64
// WGMMA-NEXT: gemmir.yield
