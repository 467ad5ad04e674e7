// RUN: gemmir compile %s --target cuda:sm_80 --emit ptx --schedule 'tile{loops=m,n sizes=32,32 over=blocks},tile{loops=m,n sizes=16,32 over=warps},promote{operand=c to=registers},tile{loops=k sizes=32},promote{operand=a to=shared layout=swizzle:64},promote{operand=b to=shared layout=swizzle:64},pipeline{loop=k stages=3},vectorize{with=mma width=8},unroll{loop=k factor=2}' | filecheck %s

func.func @layer(%a: memref<64x128xbf16> {gemmir.name = "a", gemmir.access = "read"},
                 %b: memref<128x64xbf16> {gemmir.name = "b", gemmir.access = "read"},
                 %c: memref<64x64xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<64x128xbf16>, memref<128x64xbf16>, memref<64x64xf32>
  func.return
}

// The kernel has the name of the function, its threads, and three stages of 32 x 32 of A and of B.

// CHECK:      .target sm_80
// CHECK:      .visible .entry layer(
// CHECK:      .reqntid 64, 1, 1
// CHECK-DAG:  .shared .align 512 .b8 layer_shared0[6144];
// CHECK-DAG:  .shared .align 512 .b8 layer_shared1[6144];

// Two slices are begun before the loop, in pieces of 16 bytes that go past the first cache. Nothing
// is clipped: no copy has a size in a register.

// CHECK-NOT:  cp.async.cg.shared.global {{.*}}, 16, %r
// CHECK:      cp.async.cg.shared.global [{{%r[0-9]+}}], [{{%rd[0-9]+}}], 16;
// CHECK:      cp.async.commit_group;
// CHECK:      cp.async.cg.shared.global
// CHECK:      cp.async.commit_group;

// An iteration reads the 16 x 16 of A of its warp at once, and 16 x 32 of B in two turns, transposed
// on the way; each gives two products. The same twice, for the two steps of k of a slice.

// CHECK:      ldmatrix.sync.aligned.m8n8.x4.shared.b16 {[[A:%r[0-9]+, %r[0-9]+, %r[0-9]+, %r[0-9]+]]}, [{{%r[0-9]+}}];
// CHECK:      ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {[[B0:%r[0-9]+, %r[0-9]+]], [[B1:%r[0-9]+, %r[0-9]+]]}, [{{%r[0-9]+}}];
// CHECK:      mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
// CHECK-NEXT:   {{[{].*}},
// CHECK-NEXT:   {[[A]]},
// CHECK-NEXT:   {[[B0]]},
// CHECK:      mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
// CHECK-NEXT:   {{[{].*}},
// CHECK-NEXT:   {[[A]]},
// CHECK-NEXT:   {[[B1]]},
// CHECK:      ldmatrix.sync.aligned.m8n8.x4.shared.b16

// One wait and one barrier an iteration, before which all but one group have landed.

// CHECK:      cp.async.wait_group 1;
// CHECK-NEXT: bar.sync 0;
// CHECK-NOT:  bar.sync
// CHECK:      ret;
