// RUN: gemmir compile %s --target cpu:x86-64-v3 --emit llvm --schedule 'tile{loops=m sizes=2 over=cores},promote{operand=a to=l2 layout=panel:2},promote{operand=c to=registers},vectorize{with=fma width=8}' | filecheck %s

func.func @gemm(%a: memref<6x4xf32> {gemmir.name = "a", gemmir.access = "read"},
                %b: memref<4x8xf32> {gemmir.name = "b", gemmir.access = "read"},
                %c: memref<6x8xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<6x4xf32>, memref<4x8xf32>, memref<6x8xf32>
  func.return
}

// How many threads there are is what a variable of the module says, or OpenMP where that is 0.
// The buffers of all threads are allocated before any of them starts, so that a call fails as a
// whole or not at all.

// CHECK:      @gemm_threads = global i32 0
// CHECK:      define i32 @gemm(
// CHECK-NEXT: entry:
// CHECK-NEXT:   [[DATA:%\w+]] = alloca { ptr, {{.*}} }
// CHECK-NEXT:   [[ASKED:%\w+]] = load i32, ptr @gemm_threads
// CHECK-NEXT:   [[MOST:%\w+]] = call i32 @omp_get_max_threads()
// CHECK-NEXT:   [[IS_SET:%\w+]] = icmp sgt i32 [[ASKED]], 0
// CHECK-NEXT:   [[TEAM:%\w+]] = select i1 [[IS_SET]], i32 [[ASKED]], i32 [[MOST]]
// CHECK-NEXT:   [[WIDE:%\w+]] = sext i32 [[TEAM]] to i64
// CHECK-NEXT:   [[SIZE:%\w+]] = mul nsw i64 [[WIDE]], 4096
// CHECK-NEXT:   [[BUFFERS:%\w+]] = call noalias ptr @aligned_alloc(i64 4096, i64 [[SIZE]])
// CHECK:        ret i32 1
// CHECK:        call void @GOMP_parallel(ptr @gemm.forall0, ptr [[DATA]], i32 [[TEAM]], i32 0)
// CHECK-NEXT:   call void @free(ptr [[BUFFERS]])
// CHECK-NEXT:   ret i32 0

// A thread takes its own buffer and a contiguous block of the iterations.

// CHECK:      define internal void @gemm.forall0(ptr %data) nounwind {
// CHECK:        call i32 @omp_get_thread_num()
// CHECK:        getelementptr i8, ptr {{%\w+}}, i64
// CHECK:        call i32 @omp_get_num_threads()
// CHECK:        call i64 @llvm.smin.i64(
// CHECK:        ret void
