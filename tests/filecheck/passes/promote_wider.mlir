// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l2 layout="panel:3" as=f32},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=fma width=8}' | filecheck %s

func.func @floats(%a: memref<3x5xbf16>, %b: memref<5x8xbf16>, %c: memref<3x8xbf16>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<3x5xbf16>, memref<5x8xbf16>, memref<3x8xbf16>
  func.return
}

// Elements of A are widened once, when they are packed, and those of B where they are read.

// CHECK-LABEL: @floats
// CHECK:      %a_packed = memref.alloc() {{.*}} : memref<3x5xf32, #gemmir.panel<0, 3, 15>, #gemmir.space<l2>>
// CHECK:      [[READ:%\w+]] = vector.transfer_read %a[{{.*}}vector<3x1xbf16>
// CHECK-NEXT: [[WIDE:%\w+]] = arith.extf [[READ]] : vector<3x1xbf16> to vector<3x1xf32>
// CHECK:      vector.transfer_write [[WIDE]]
// CHECK:      [[A:%\w+]] = vector.transfer_read {{.*}}vector<3x1xf32>
// CHECK-NEXT: [[READ_B:%\w+]] = vector.transfer_read %b[{{.*}}vector<1x8xbf16>
// CHECK-NEXT: [[B:%\w+]] = arith.extf [[READ_B]] : vector<1x8xbf16> to vector<1x8xf32>
// CHECK-NEXT: gemmir.outerproduct [[A]], [[B]], {{%\w+}} : vector<3x1xf32>, vector<1x8xf32>, vector<3x8xf32>
// CHECK:      arith.truncf {{.*}} : vector<3x8xf32> to vector<3x8xbf16>
