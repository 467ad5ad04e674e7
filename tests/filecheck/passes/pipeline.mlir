// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=32,16 over=blocks},gemmir-tile{loops=m,n sizes=16,8 over=warps},gemmir-promote{operand=c to=registers},gemmir-tile{loops=k sizes=16},gemmir-promote{operand=a to=shared layout="swizzle:32"},gemmir-pipeline{loop=k stages=3}' | filecheck %s

func.func @gemm(%a: memref<32x64xbf16>, %b: memref<64x16xbf16>, %c: memref<32x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<32x64xbf16>, memref<64x16xbf16>, memref<32x16xf32>
  func.return
}

// Three slices of 32 x 16 lie one behind the other. Two are begun before the loop, each a group.

// CHECK:      %a_shared = memref.alloca() : memref<96x16xbf16, #gemmir.swizzle<1, 16, 1536, 8>, #gemmir.space<shared>>
// CHECK:      gemmir.pack asynchronous {{%\w+}} into {{%\w+}}
// CHECK-NEXT: nvgpu.device_async_create_group
// CHECK:      gemmir.pack asynchronous {{%\w+}} into {{%\w+}}
// CHECK-NEXT: nvgpu.device_async_create_group

// The loop carries the stages, the one in use first, and passes them on. All but one group have landed
// before the barrier; then the slice two ahead goes where the one before was, if there is one.

// CHECK:      scf.for %p = {{.*}} iter_args([[NOW:%\w+]] = %{{\w+}}, [[NEXT:%\w+]] = %{{\w+}}, [[LAST:%\w+]] = %{{\w+}}) -> (index, index, index) {
// CHECK:        nvgpu.device_async_wait groups 1 : i64
// CHECK-NEXT:   gemmir.barrier
// CHECK-NEXT:   [[LATER:%\w+]] = arith.addi %p, %{{\w+}} : index
// CHECK-NEXT:   [[REMAINS:%\w+]] = arith.cmpi slt, [[LATER]], %{{\w+}} : index
// CHECK-NEXT:   scf.if [[REMAINS]] {
// CHECK:          [[AT:%\w+]] = arith.muli [[LAST]]
// CHECK:          memref.subview %a_shared[[[AT]], 0] [32, 16]
// CHECK:          gemmir.pack asynchronous
// CHECK:        nvgpu.device_async_create_group
// CHECK:        [[HERE:%\w+]] = arith.muli [[NOW]]
// CHECK:        memref.subview %a_shared[[[HERE]], 0] [32, 16]
// CHECK:        gemmir.gemm
// CHECK:        scf.yield [[NEXT]], [[LAST]], [[NOW]] : index, index, index
// CHECK-NEXT: } {gemmir.dim = "k"}
