// RUN: gemmir compile %s --target cpu:x86-64-v3 --emit llvm --schedule 'promote{operand=c to=registers},vectorize{with=fma width=8},unroll{loop=k factor=2}' | filecheck %s

func.func @gemm(%a: memref<2x4xf32> {gemmir.name = "a", gemmir.access = "read"},
                %b: memref<4x8xf32> {gemmir.name = "b", gemmir.access = "read"},
                %c: memref<2x8xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<2x4xf32>, memref<4x8xf32>, memref<2x8xf32>
  func.return
}

// Arguments in order. The register tile is expanded here and nowhere else: two accumulators, which
// are phis, so that no pass of LLVM has to find them.

// CHECK:      define i32 @gemm(ptr noalias %a0, ptr noalias %a1, ptr noalias %a2) nounwind {
// CHECK-NEXT: entry:
// CHECK-NEXT:   br label %[[BODY:\w+]]
// CHECK-NEXT: [[BODY]]:
// CHECK-NEXT:   [[K:%\w+]] = phi i64 [ 0, %entry ], [ [[NEXT:%\w+]], %[[BODY]] ]
// CHECK-NEXT:   [[X:%\w+]] = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ [[X2:%\w+]], %[[BODY]] ]
// CHECK-NEXT:   [[Y:%\w+]] = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ [[Y2:%\w+]], %[[BODY]] ]

// A is read by scalars and broadcast; the second row is a constant away from the first.

// CHECK:        [[A:%\w+]] = load float, ptr [[AT:%\w+]], align 4
// CHECK-NEXT:   [[BELOW:%\w+]] = getelementptr float, ptr [[AT]], i64 4
// CHECK-NEXT:   load float, ptr [[BELOW]], align 4
// CHECK:        [[ROW:%\w+]] = load <8 x float>, ptr
// CHECK:        insertelement <8 x float> poison, float [[A]], i64 0
// CHECK:        call <8 x float> @llvm.fma.v8f32(<8 x float> {{%\w+}}, <8 x float> [[ROW]], <8 x float> [[X]])
// CHECK:        call <8 x float> @llvm.fma.v8f32(<8 x float> {{%\w+}}, <8 x float> [[ROW]], <8 x float> [[Y]])
// CHECK:        [[NEXT]] = add nsw i64 [[K]], 2
// CHECK-NEXT:   [[AGAIN:%\w+]] = icmp slt i64 [[NEXT]], 4
// CHECK-NEXT:   br i1 [[AGAIN]], label %[[BODY]], label %[[DONE:\w+]]
// CHECK-NEXT: [[DONE]]:
// CHECK-NEXT:   store <8 x float> [[X2]], ptr %a2, align 4
// CHECK:        store <8 x float> [[Y2]], ptr {{%\w+}}, align 4
// CHECK-NEXT:   ret i32 0
