// RUN: gemmir compile %s --target tpu:v5e --emit pallas --schedule 'tile{loops=batch,m,n sizes=1,128,256 over=grid},promote{operand=c to=vmem},tile{loops=k sizes=512},promote{operand=a to=vmem},promote{operand=b to=vmem},fuse-epilogue,pipeline{loop=k stages=2 with=dma},vectorize{with=mxu}' | filecheck %s

// C = relu(A B^T + C0 + bias) of 4 products that share B, which is stored n x k.

func.func @layer(%a: memref<4x200x1200xbf16> {gemmir.name = "a", gemmir.access = "read"},
                 %b: memref<512x1200xbf16> {gemmir.name = "b", gemmir.access = "read"},
                 %bias: memref<512xf32> {gemmir.name = "bias", gemmir.access = "read"},
                 %c: memref<4x200x512xf32> {gemmir.name = "c", gemmir.access = "readwrite"}) {
  %b_t = memref.reinterpret_cast %b to offset: [0], sizes: [4, 1200, 512], strides: [0, 1, 1200]
    : memref<512x1200xbf16> to memref<4x1200x512xbf16, strided<[0, 1, 1200]>>
  gemmir.gemm %a, %b_t, %c alpha 1.0 : f64 beta 1.0 : f64
    : memref<4x200x1200xbf16>, memref<4x1200x512xbf16, strided<[0, 1, 1200]>>, memref<4x200x512xf32>
  %rows = memref.reinterpret_cast %bias to offset: [0], sizes: [4, 200, 512], strides: [0, 0, 1]
    : memref<512xf32> to memref<4x200x512xf32, strided<[0, 0, 1]>>
  gemmir.epilogue ins(%rows : memref<4x200x512xf32, strided<[0, 0, 1]>>) outs(%c : memref<4x200x512xf32>) {
  ^bb0(%x: f32, %sum: f32):
    %biased = arith.addf %sum, %x : f32
    %zero = arith.constant 0.0 : f32
    %relu = arith.maximumf %biased, %zero : f32
    gemmir.yield %relu : f32
  }
  func.return
}

// CHECK:      """c = f(a @ b.T, bias, c), by a Pallas kernel for TPU v5e.
// CHECK:      a     bfloat16[4, 200, 1200]
// CHECK:      Grid: 4 x 2 x 2 x 3 steps, in order along dimension 3.
// CHECK:      acc 128 x 256 of float32

// Of the last slice along k there are 176; only that is masked, and B is not turned round.

// CHECK:      def _layer_kernel(a_ref, b_ref, bias_ref, c_old_ref, c_ref, acc_ref):
// CHECK:      size = jnp.minimum(512, 1200 - p * 512)
// CHECK-NEXT: a = jnp.where(lax.broadcasted_iota(jnp.int32, (128, 512), 1) < size, a_ref[...], 0.0)
// CHECK-NEXT: b = jnp.where(lax.broadcasted_iota(jnp.int32, (256, 512), 1) < size, b_ref[...], 0.0)
// CHECK:      (((1,), (1,)), ((), ())),
// CHECK:      acc_ref[...] = jnp.where(p == 0, 0.0, acc_ref[...]) + product
// CHECK:      @pl.when(p == 2)
// CHECK:      c_ref[...] = jnp.maximum(acc_ref[...] + c_old_ref[...] + bias_ref[...], 0.0)

// The old C is changed in place, B is the same for each product, and a bias is one row.

// CHECK:      def layer(a, b, bias, c, *, interpret=False):
// CHECK:      pl.BlockSpec((None, 128, 512), lambda s, i, j, p: (s, i, p)),
// CHECK-NEXT: pl.BlockSpec((256, 512), lambda s, i, j, p: (j, p)),
// CHECK-NEXT: pl.BlockSpec((1, 256), lambda s, i, j, p: (0, j)),
// CHECK-NEXT: pl.BlockSpec((None, 128, 256), lambda s, i, j, p: (s, i, j)),
// CHECK:      scratch_shapes=[pltpu.VMEM((128, 256), jnp.float32)],
// CHECK:      out_shape=jax.ShapeDtypeStruct((4, 200, 512), jnp.float32),
// CHECK:      input_output_aliases={3: 0},
// CHECK:      dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"),
// CHECK:      interpret=interpret,
// CHECK:      )(a, b, bias.reshape(1, 512), c)
