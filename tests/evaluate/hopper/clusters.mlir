// 200 x 512 x 256, B transposed, by a cluster of two blocks; each copies half of B to both.
builtin.module {
  func.func @gemm(%a: memref<200x256xbf16> {gemmir.name = "a", gemmir.access = "read"}, %b: memref<512x256xbf16> {gemmir.name = "b", gemmir.access = "read"}, %c: memref<200x512xf32> {gemmir.name = "c", gemmir.access = "write"}) {
    %0 = arith.constant 0 : index
    %1 = arith.constant 1 : index
    %2 = arith.constant 2 : index
    %3 = arith.constant 4 : index
    %4 = arith.constant 64 : index
    %5 = arith.constant 128 : index
    %6 = arith.constant 200 : index
    %7 = arith.constant 256 : index
    %i0 = arith.constant 0 : i32
    %i1 = arith.constant 1 : i32
    %i3 = arith.constant 3 : i32
    %zero = arith.constant dense<0.000000e+00> : vector<64x256xf32>
    %b_t = memref.reinterpret_cast %b to offset: [0], sizes: [256, 512], strides: [1, 256] : memref<512x256xbf16> to memref<256x512xbf16, strided<[1, 256]>>
    %a_map = nvgpu.tma.create.descriptor %a : memref<200x256xbf16> -> !nvgpu.tensormap<memref<128x64xbf16, #gemmir.swizzle<1, 64, 8192, 8>, #gemmir.space<shared>>>
    %b_map = nvgpu.tma.create.descriptor %b_t : memref<256x512xbf16, strided<[1, 256]>> -> !nvgpu.tensormap<memref<64x128xbf16, #gemmir.swizzle<0, 64, 8192, 8>, #gemmir.space<shared>>>
    gemmir.forall %cluster = %0 to %1 step %1 over clusters {
      gemmir.forall %rank = %0 to %2 step %1 over blocks {
        %a_shared = memref.alloca() : memref<384x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>
        %b_shared = memref.alloca() : memref<64x768xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>>
        %full = nvgpu.mbarrier.create arrivals 1 : i64 : memref<3xi64, #gemmir.space<shared>>
        %empty = nvgpu.mbarrier.create arrivals 16 : i64 : memref<3xi64, #gemmir.space<shared>>
        nvgpu.cluster.barrier
        nvgpu.warp_specialize warpgroups 2 : i64 registers 40 : i64, 232 : i64 producer {
          %ps, %ps_1 = scf.for %t = %cluster to %2 step %1 iter_args(%stage0 = %i0, %parity0 = %i1) -> (i32, i32) {
            %i = arith.muli %rank, %5 : index
            %j = arith.muli %t, %7 : index
            %pk, %pk_1 = scf.for %p = %0 to %7 step %4 iter_args(%stage = %stage0, %parity = %parity0) -> (i32, i32) {
              nvgpu.mbarrier.wait %empty[%stage] parity %parity : memref<3xi64, #gemmir.space<shared>>
              nvgpu.mbarrier.arrive.expect_tx %full[%stage] bytes 49152 : i64 : memref<3xi64, #gemmir.space<shared>>
              %s = arith.index_cast %stage : i32 to index
              %ao = arith.muli %s, %5 : index
              %as = memref.subview %a_shared[%ao, 0] [128, 64] [1, 1] : memref<384x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>> to memref<128x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>
              nvgpu.tma.async.load %a_map[%i, %p], %full[%stage] to %as : !nvgpu.tensormap<memref<128x64xbf16, #gemmir.swizzle<1, 64, 8192, 8>, #gemmir.space<shared>>>, memref<3xi64, #gemmir.space<shared>> to memref<128x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>
              %bo = arith.muli %s, %7 : index
              %br = arith.muli %rank, %5 : index
              %bj = arith.addi %bo, %br : index
              %jr = arith.addi %j, %br : index
              %bs = memref.subview %b_shared[0, %bj] [64, 128] [1, 1] : memref<64x768xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>> to memref<64x128xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>>
              nvgpu.tma.async.load %b_map[%p, %jr], %full[%stage] to %bs multicast 3 : i64 : !nvgpu.tensormap<memref<64x128xbf16, #gemmir.swizzle<0, 64, 8192, 8>, #gemmir.space<shared>>>, memref<3xi64, #gemmir.space<shared>> to memref<64x128xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>>
              %n = arith.addi %stage, %i1 : i32
              %wraps = arith.cmpi eq, %n, %i3 : i32
              %next = arith.select %wraps, %i0, %n : i32
              %turn = arith.extui %wraps : i1 to i32
              %other = arith.xori %parity, %turn : i32
              scf.yield %next, %other : i32, i32
            } {gemmir.dim = "k"}
            scf.yield %pk, %pk_1 : i32, i32
          } {gemmir.dim = "tiles"}
          gemmir.yield
        } consumers {
        ^bb0(%w: index):
          %cs, %cs_1 = scf.for %t_1 = %cluster to %2 step %1 iter_args(%stage0_1 = %i0, %parity0_1 = %i0) -> (i32, i32) {
            %i_1 = arith.muli %rank, %5 : index
            %j_1 = arith.muli %t_1, %7 : index
            %iw = arith.muli %w, %4 : index
            %ck, %ck_1, %ck_2, %ck_3 = scf.for %p_1 = %0 to %7 step %4 iter_args(%stage_1 = %stage0_1, %parity_1 = %parity0_1, %before = %stage0_1, %acc = %zero) -> (i32, i32, i32, vector<64x256xf32>) {
              nvgpu.mbarrier.wait %full[%stage_1] parity %parity_1 : memref<3xi64, #gemmir.space<shared>>
              %s_1 = arith.index_cast %stage_1 : i32 to index
              %ao_1 = arith.muli %s_1, %5 : index
              %as_1 = memref.subview %a_shared[%ao_1, 0] [128, 64] [1, 1] : memref<384x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>> to memref<128x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>
              %aw = memref.subview %as_1[%iw, 0] [64, 64] [1, 1] : memref<128x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>> to memref<64x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>
              %bo_1 = arith.muli %s_1, %7 : index
              %bs_1 = memref.subview %b_shared[0, %bo_1] [64, 256] [1, 1] : memref<64x768xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>> to memref<64x256xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>>
              %begun = nvgpu.warpgroup.mma %aw, %bs_1, %acc : memref<64x64xbf16, #gemmir.swizzle<1, 64, 24576, 8>, #gemmir.space<shared>>, memref<64x256xbf16, #gemmir.swizzle<0, 64, 49152, 8>, #gemmir.space<shared>>, vector<64x256xf32>
              %summed = nvgpu.warpgroup.wait groups 1 : i64 %begun : vector<64x256xf32>
              %later = arith.cmpi ne, %p_1, %0 : index
              scf.if %later {
                nvgpu.mbarrier.arrive %empty[%before] cluster 2 : i64 : memref<3xi64, #gemmir.space<shared>>
              } else {
              }
              %n_1 = arith.addi %stage_1, %i1 : i32
              %wraps_1 = arith.cmpi eq, %n_1, %i3 : i32
              %next_1 = arith.select %wraps_1, %i0, %n_1 : i32
              %turn_1 = arith.extui %wraps_1 : i1 to i32
              %other_1 = arith.xori %parity_1, %turn_1 : i32
              scf.yield %next_1, %other_1, %stage_1, %summed : i32, i32, i32, vector<64x256xf32>
            } {gemmir.dim = "k"}
            %total = nvgpu.warpgroup.wait groups 0 : i64 %ck_3 : vector<64x256xf32>
            nvgpu.mbarrier.arrive %empty[%ck_2] cluster 2 : i64 : memref<3xi64, #gemmir.space<shared>>
            %row = arith.addi %i_1, %iw : index
            %left = arith.subi %6, %row : index
            %some = arith.minsi %4, %left : index
            %cw = memref.subview %c[%row, %j_1] [%some, 256] [1, 1] : memref<200x512xf32> to memref<?x256xf32, strided<[512, 1], offset: ?>>
            vector.transfer_write %total, %cw[%0, %0] {in_bounds = [false, true]} : vector<64x256xf32>, memref<?x256xf32, strided<[512, 1], offset: ?>>
            scf.yield %ck, %ck_1 : i32, i32
          } {gemmir.dim = "tiles"}
          gemmir.yield
        }
        nvgpu.cluster.barrier
      }
    } {gemmir.dim = "tile"}
    func.return
  }
}
