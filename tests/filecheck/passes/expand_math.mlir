// RUN: xdsl-opt %s -p gemmir-expand-math | filecheck %s

func.func @exp(%x: memref<1x8xf32>, %y: memref<1x8xf32>) {
  %0 = arith.constant 0 : index
  %pad = arith.constant 0.0 : f32
  %v = vector.transfer_read %x[%0, %0], %pad {in_bounds = [true, true]} : memref<1x8xf32>, vector<1x8xf32>
  %e = math.exp %v : vector<1x8xf32>
  vector.transfer_write %e, %y[%0, %0] {in_bounds = [true, true]} : vector<1x8xf32>, memref<1x8xf32>
  func.return
}

// exp(x) = 2^i p(r). Adding a large number rounds x / ln 2 to the integer i in the lowest bits; ln 2
// is subtracted in two parts, so that r is exact; p is of degree 7; i becomes an exponent.

// CHECK:      [[CLAMP:%\w+]] = arith.minimumf
// CHECK-NEXT: [[X:%\w+]] = arith.maximumf [[CLAMP]]
// CHECK-NEXT: [[SCALED:%\w+]] = arith.mulf [[X]]
// CHECK-NEXT: [[SHIFTED:%\w+]] = arith.addf [[SCALED]], [[SHIFTER:%\w+]]
// CHECK-NEXT: [[POWER:%\w+]] = arith.subf [[SHIFTED]], [[SHIFTER]]
// CHECK-NEXT: [[HIGH:%\w+]] = math.fma [[POWER]], {{%\w+}}, [[X]]
// CHECK-NEXT: [[R:%\w+]] = math.fma [[POWER]], {{%\w+}}, [[HIGH]]
// CHECK-COUNT-7: math.fma {{%\w+}}, [[R]], {{%\w+}}
// CHECK-NEXT: [[BITS:%\w+]] = arith.bitcast [[SHIFTED]] : vector<1x8xf32> to vector<1x8xi32>
// CHECK-NEXT: [[BIASED:%\w+]] = arith.addi [[BITS]]
// CHECK-NEXT: [[EXPONENT:%\w+]] = arith.shli [[BIASED]]
// CHECK-NEXT: [[TWOTOI:%\w+]] = arith.bitcast [[EXPONENT]] : vector<1x8xi32> to vector<1x8xf32>
// CHECK-NEXT: [[EXP:%\w+]] = arith.mulf {{%\w+}}, [[TWOTOI]]
// CHECK-NEXT: vector.transfer_write [[EXP]]
