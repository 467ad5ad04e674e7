// RUN: xdsl-opt %s | xdsl-opt | filecheck %s

// Every op of the dialect, as it is printed and read.

// CHECK-LABEL: func.func @ops
func.func @ops(%a: memref<6x8xf32>, %b: memref<8x16xf32>, %c: memref<6x16xf32>) {
  %0 = arith.constant 0 : index
  %6 = arith.constant 6 : index
  %first = arith.constant true

  // CHECK: gemmir.gemm %a, %b, %c first %first alpha 5.000000e-01 : f64 beta 2.000000e+00 : f64 : memref<6x8xf32>, memref<8x16xf32>, memref<6x16xf32>
  gemmir.gemm %a, %b, %c first %first alpha 0.5 : f64 beta 2.0 : f64 : memref<6x8xf32>, memref<8x16xf32>, memref<6x16xf32>

  // CHECK:      gemmir.epilogue outs(%c : memref<6x16xf32>) {
  // CHECK-NEXT: ^bb0([[OLD:%\w+]]: f32):
  // CHECK-NEXT:   [[NEW:%\w+]] = arith.negf [[OLD]] : f32
  // CHECK-NEXT:   gemmir.yield [[NEW]] : f32
  // CHECK-NEXT: }
  gemmir.epilogue outs(%c : memref<6x16xf32>) {
  ^bb0(%old: f32):
    %new = arith.negf %old : f32
    gemmir.yield %new : f32
  }

  // CHECK: %p = memref.alloc() {alignment = 4096 : i64} : memref<6x8xf32, #gemmir.panel<0, 3, 24>, #gemmir.space<l2>>
  %p = memref.alloc() {alignment = 4096 : i64} : memref<6x8xf32, #gemmir.panel<0, 3, 24>, #gemmir.space<l2>>
  // CHECK-NEXT: gemmir.pack %a into %p : memref<6x8xf32> into memref<6x8xf32, #gemmir.panel<0, 3, 24>, #gemmir.space<l2>>
  gemmir.pack %a into %p : memref<6x8xf32> into memref<6x8xf32, #gemmir.panel<0, 3, 24>, #gemmir.space<l2>>
  // CHECK-NEXT: gemmir.prefetch %c : memref<6x16xf32>
  gemmir.prefetch %c : memref<6x16xf32>

  // CHECK-NEXT: gemmir.forall %i = {{%\w+}} to {{%\w+}} step {{%\w+}} over cores {
  // CHECK-NEXT: } {gemmir.dim = "m"}
  gemmir.forall %i = %0 to %6 step %6 over cores {
  } {gemmir.dim = "m"}

  %lhs, %rhs, %acc = "test.op"() : () -> (vector<6x1xf32>, vector<1x8xf32>, vector<6x8xf32>)
  // CHECK: {{%\w+}} = gemmir.outerproduct %lhs, %rhs, %acc : vector<6x1xf32>, vector<1x8xf32>, vector<6x8xf32>
  %sum = gemmir.outerproduct %lhs, %rhs, %acc : vector<6x1xf32>, vector<1x8xf32>, vector<6x8xf32>

  memref.dealloc %p : memref<6x8xf32, #gemmir.panel<0, 3, 24>, #gemmir.space<l2>>
  func.return
}

// CHECK-LABEL: func.func @types
func.func @types(%a: memref<16x32xf8E4M3FN>, %b: memref<32x8xf8E4M3FN>, %h: memref<16x8xbf16>, %x: memref<16x8xf32>, %y: memref<8x8xf32>, %u: memref<16x32xui8>, %v: memref<32x8xui8>, %s: memref<16x8xi32>) {
  // CHECK: gemmir.gemm %a, %b, %h alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 : memref<16x32xf8E4M3FN>, memref<32x8xf8E4M3FN>, memref<16x8xbf16>
  gemmir.gemm %a, %b, %h alpha 1.0 : f64 beta 0.0 : f64 : memref<16x32xf8E4M3FN>, memref<32x8xf8E4M3FN>, memref<16x8xbf16>
  // CHECK: gemmir.gemm %x, %y, %h alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 precision <tf32> : memref<16x8xf32>, memref<8x8xf32>, memref<16x8xbf16>
  gemmir.gemm %x, %y, %h alpha 1.0 : f64 beta 0.0 : f64 precision <tf32> : memref<16x8xf32>, memref<8x8xf32>, memref<16x8xbf16>
  // CHECK: gemmir.gemm %x, %y, %h alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 precision <bf16x3> : memref<16x8xf32>, memref<8x8xf32>, memref<16x8xbf16>
  gemmir.gemm %x, %y, %h alpha 1.0 : f64 beta 0.0 : f64 precision <bf16x3> : memref<16x8xf32>, memref<8x8xf32>, memref<16x8xbf16>
  // CHECK: gemmir.gemm %u, %v, %s alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 : memref<16x32xui8>, memref<32x8xui8>, memref<16x8xi32>
  gemmir.gemm %u, %v, %s alpha 1.0 : f64 beta 0.0 : f64 : memref<16x32xui8>, memref<32x8xui8>, memref<16x8xi32>
  // CHECK: [[ZERO:%\w+]] = arith.constant 0 : i8
  %zero = arith.constant 0 : i8
  // CHECK-NEXT: builtin.unrealized_conversion_cast [[ZERO]] : i8 to ui8
  %none = builtin.unrealized_conversion_cast %zero : i8 to ui8

  %lhs, %rhs, %acc = "test.op"() : () -> (vector<16x8xf32>, vector<8x8xf32>, vector<16x8xf32>)
  // CHECK: nvgpu.mma.sync %lhs, %rhs, %acc shape [16 : i64, 8 : i64, 8 : i64] tf32Enabled : vector<16x8xf32>, vector<8x8xf32>, vector<16x8xf32>
  %sum = nvgpu.mma.sync %lhs, %rhs, %acc shape [16, 8, 8] tf32Enabled : vector<16x8xf32>, vector<8x8xf32>, vector<16x8xf32>
  func.return
}

// CHECK-LABEL: func.func @grid
func.func @grid(%x: memref<2x20x128xf32>, %y: memref<20x128xf32>, %offsets: memref<4xi32>) {
  // CHECK:      pallas.call grid [3 : i64] semantics ["parallel"] ins(%y : memref<20x128xf32>) outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>, #pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 1>] {
  // CHECK-NEXT: ^bb0(%i: index, %in: memref<8x128xf32, #gemmir.space<vmem>>, %out: memref<8x128xf32, #gemmir.space<vmem>>, %kept: memref<8x128xf32, #gemmir.space<vmem>>):
  // CHECK-NEXT:   gemmir.yield
  // CHECK-NEXT: }
  pallas.call grid [3] semantics ["parallel"] ins(%y : memref<20x128xf32>) outs(%y : memref<20x128xf32>)
    blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>, #pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 1>] {
  ^bb0(%i: index, %in: memref<8x128xf32, #gemmir.space<vmem>>, %out: memref<8x128xf32, #gemmir.space<vmem>>, %kept: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }

  // CHECK:      pallas.call grid [2 : i64, 3 : i64] semantics ["arbitrary", "parallel"] outs(%x : memref<2x20x128xf32>) blocks [#pallas.block<[1, 8, 128], affine_map<(d0, d1) -> (d0, d1, 0)>, 2>] {
  // CHECK-NEXT: ^bb0(%s: index, %row: index, %matrix: memref<8x128xf32, #gemmir.space<vmem>>):
  pallas.call grid [2, 3] semantics ["arbitrary", "parallel"] outs(%x : memref<2x20x128xf32>)
    blocks [#pallas.block<[1, 8, 128], affine_map<(d0, d1) -> (d0, d1, 0)>, 2>] {
  ^bb0(%s: index, %row: index, %matrix: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }

  // CHECK: %visits = gemmir.visits %offsets rows 20 : i64 by 8 : i64 : memref<4xi32> -> memref<6x5xi32, #gemmir.space<smem>>
  %visits = gemmir.visits %offsets rows 20 : i64 by 8 : i64 : memref<4xi32> -> memref<6x5xi32, #gemmir.space<smem>>
  // CHECK-NEXT: pallas.call grid [5 : i64] semantics ["arbitrary"] prefetched(%visits : memref<6x5xi32, #gemmir.space<smem>>) along 0 : i64 outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0)[s0, s1] -> (s1, 0)>, 2>] {
  pallas.call grid [5] semantics ["arbitrary"] prefetched(%visits : memref<6x5xi32, #gemmir.space<smem>>) along 0 outs(%y : memref<20x128xf32>)
    blocks [#pallas.block<[8, 128], affine_map<(d0)[s0, s1] -> (s1, 0)>, 2>] {
  ^bb0(%v: index, %tile: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }

  %lhs, %rhs, %f, %g = "test.op"() : () -> (vector<8x16xbf16>, vector<16x128xbf16>, vector<8x16xf32>, vector<16x8xf32>)
  // CHECK: {{%\w+}} = pallas.dot %lhs, %rhs : vector<8x16xbf16>, vector<16x128xbf16> -> vector<8x128xf32>
  %z = pallas.dot %lhs, %rhs : vector<8x16xbf16>, vector<16x128xbf16> -> vector<8x128xf32>
  // CHECK-NEXT: {{%\w+}} = pallas.dot %f, %g precision <bf16x3> : vector<8x16xf32>, vector<16x8xf32> -> vector<8x8xf32>
  %w = pallas.dot %f, %g precision <bf16x3> : vector<8x16xf32>, vector<16x8xf32> -> vector<8x8xf32>
  func.return
}

// CHECK-LABEL: func.func @tiles
func.func @tiles(%a: memref<32x64xui8, strided<[80, 1]>>, %b: memref<64x16xi8, #gemmir.panel<1, 16, 2048, 16, 4, 64>>, %c: memref<16x16xi32>) {
  %0 = arith.constant 0 : index
  // CHECK: %acc = amx.tile_zero : !amx.tile<16x16xi32>
  %acc = amx.tile_zero : !amx.tile<16x16xi32>
  // CHECK-NEXT: %lhs = amx.tile_load %a[{{%\w+}}, {{%\w+}}] : memref<32x64xui8, strided<[80, 1]>> into !amx.tile<16x64xui8>
  %lhs = amx.tile_load %a[%0, %0] : memref<32x64xui8, strided<[80, 1]>> into !amx.tile<16x64xui8>
  // CHECK-NEXT: %rhs = amx.tile_load %b[{{%\w+}}, {{%\w+}}] : memref<64x16xi8, #gemmir.panel<1, 16, 2048, 16, 4, 64>> into !amx.tile<16x64xi8>
  %rhs = amx.tile_load %b[%0, %0] : memref<64x16xi8, #gemmir.panel<1, 16, 2048, 16, 4, 64>> into !amx.tile<16x64xi8>
  // CHECK-NEXT: %sum = amx.tile_muli %lhs, %rhs, %acc : !amx.tile<16x64xui8>, !amx.tile<16x64xi8>, !amx.tile<16x16xi32>
  %sum = amx.tile_muli %lhs, %rhs, %acc : !amx.tile<16x64xui8>, !amx.tile<16x64xi8>, !amx.tile<16x16xi32>
  // CHECK-NEXT: amx.tile_store %c[{{%\w+}}, {{%\w+}}], %sum : memref<16x16xi32>, !amx.tile<16x16xi32>
  amx.tile_store %c[%0, %0], %sum : memref<16x16xi32>, !amx.tile<16x16xi32>
  %f, %g, %h = "test.op"() : () -> (!amx.tile<8x4xbf16>, !amx.tile<2x8xbf16>, !amx.tile<8x4xf32>)
  // CHECK: amx.tile_mulf %f, %g, %h : !amx.tile<8x4xbf16>, !amx.tile<2x8xbf16>, !amx.tile<8x4xf32>
  %i = amx.tile_mulf %f, %g, %h : !amx.tile<8x4xbf16>, !amx.tile<2x8xbf16>, !amx.tile<8x4xf32>
  func.return
}
