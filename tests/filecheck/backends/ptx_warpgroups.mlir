// RUN: gemmir compile %s --target cuda:sm_90a --emit ptx --schedule 'tile{loops=m,n sizes=128,64 over=blocks},persist{blocks=2},tile{loops=m sizes=64 over=warpgroups},promote{operand=c to=registers},tile{loops=k sizes=64},promote{operand=a to=shared layout=swizzle:128},promote{operand=b to=shared layout=swizzle:128},promote{operand=c to=shared layout=swizzle:128},pipeline{loop=k stages=2 with=tma specialize=true},vectorize{with=wgmma}' | filecheck %s

func.func @layer(%a: memref<256x256xbf16> {gemmir.name = "a", gemmir.access = "read"},
                 %b: memref<256x128xbf16> {gemmir.name = "b", gemmir.access = "read"},
                 %c: memref<256x128xbf16> {gemmir.name = "c", gemmir.access = "write"}) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<256x256xbf16>, memref<256x128xbf16>, memref<256x128xbf16>
  func.return
}

// Tensor maps of A, B and C come first, by value; a producer and two consumers are 384 threads.

// CHECK:      .target sm_90a
// CHECK:      .extern .shared .align 1024 .b8 layer_shared[];
// CHECK:      .visible .entry layer(
// CHECK-NEXT:   .param .align 64 .b8 layer_param_0[128],
// CHECK-NEXT:   .param .align 64 .b8 layer_param_1[128],
// CHECK-NEXT:   .param .align 64 .b8 layer_param_2[128],
// CHECK-NEXT:   .param .u64 .ptr .align 16 layer_param_3,
// CHECK:      .reqntid 384, 1, 1
// CHECK-NEXT: .minnctapersm 1

// One thread fetches the maps and sets up the barriers, which all see after the next barrier of the
// block.

// CHECK-COUNT-3: prefetch.tensormap [%rd{{[0-9]+}}];
// CHECK:      mbarrier.init.shared.b64
// CHECK:      fence.mbarrier_init.release.cluster;
// CHECK:      bar.sync 0;

// A consumer waits for a stage, begins four products with its sums tied to registers, and waits for
// those of the stage before. B is adjacent along n: its descriptors go 16 rows of 128 bytes on.

// CHECK:      setmaxnreg.inc.sync.aligned.u32 232;
// CHECK:      mbarrier.try_wait.parity.shared.b64
// CHECK:      wgmma.fence.sync.aligned;
// CHECK:      wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {{{.*}}}, %rd{{[0-9]+}}, %rd{{[0-9]+}}, p, 1, 1, 0, 1;
// CHECK:      wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
// CHECK:      wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
// CHECK:      wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
// CHECK:      wgmma.commit_group.sync.aligned;
// CHECK:      wgmma.wait_group.sync.aligned 1;
// CHECK:      mbarrier.arrive.shared.b64
// CHECK:      wgmma.wait_group.sync.aligned 0;

// The sums go out as 64 x 64 elements of 16 bits, four matrices at a time, when the store before
// has read what lies there.

// CHECK:      cp.async.bulk.wait_group.read 0;
// CHECK:      bar.sync %r{{[0-9]+}}, 128;
// CHECK:      cvt.rn.bf16x2.f32
// CHECK:      stmatrix.sync.aligned.m8n8.x4.shared.b16
// CHECK:      stmatrix.sync.aligned.m8n8.x4.shared.b16
// CHECK:      stmatrix.sync.aligned.m8n8.x4.shared.b16
// CHECK:      stmatrix.sync.aligned.m8n8.x4.shared.b16
// CHECK:      fence.proxy.async.shared::cta;
// CHECK-NEXT: bar.sync %r{{[0-9]+}}, 128;
// CHECK:      cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group
// CHECK-NEXT: cp.async.bulk.commit_group;

// The producer gives registers back; one of its threads copies when a stage is free again.

// CHECK:      setmaxnreg.dec.sync.aligned.u32 40;
// CHECK:      elect.sync
// CHECK:      mbarrier.try_wait.parity.shared.b64
// CHECK:      mbarrier.arrive.expect_tx.shared.b64
// CHECK:      cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
// CHECK:      cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
// CHECK-NOT:  cp.async.bulk.tensor.2d.shared::cluster
// CHECK:      ret;
