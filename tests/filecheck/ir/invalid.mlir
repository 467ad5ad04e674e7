// RUN: xdsl-opt %s --split-input-file --verify-diagnostics | filecheck %s

func.func @extents(%a: memref<6x8xf32>, %b: memref<7x16xf32>, %c: memref<6x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<6x8xf32>, memref<7x16xf32>, memref<6x16xf32>
  func.return
}
// CHECK: gemmir.gemm: extents [7, 8] of k differ

// -----

func.func @ranks(%a: memref<2x6x8xf32>, %b: memref<8x16xf32>, %c: memref<6x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<2x6x8xf32>, memref<8x16xf32>, memref<6x16xf32>
  func.return
}
// CHECK: gemmir.gemm: ranks [3, 2, 2] must be all 2, or 3 with a batch

// -----

func.func @elements(%a: memref<6x8xf32>, %b: memref<8x16xf64>, %c: memref<6x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<6x8xf32>, memref<8x16xf64>, memref<6x16xf32>
  func.return
}
// CHECK: gemmir.gemm: element types ['f32', 'f64'] differ

// -----

func.func @arguments(%c: memref<6x16xf32>) {
  gemmir.epilogue outs(%c : memref<6x16xf32>) {
  ^bb0(%x: f32, %old: f32):
    gemmir.yield %old : f32
  }
  func.return
}
// CHECK: gemmir.epilogue: the region needs arguments of ['f32'], one an operand, and has ['f32', 'f32']

// -----

func.func @elementwise(%c: memref<6x16xf32>) {
  gemmir.epilogue outs(%c : memref<6x16xf32>) {
  ^bb0(%old: f32):
    %0 = memref.alloc() : memref<1xf32>
    gemmir.yield %old : f32
  }
  func.return
}
// CHECK: gemmir.epilogue: memref.alloc is not an elementwise op

// -----

func.func @layout(%a: memref<6x8xf32>, %p: memref<6x8xf32>) {
  gemmir.pack %a into %p : memref<6x8xf32> into memref<6x8xf32>
  func.return
}
// CHECK: gemmir.pack: the target memref<6x8xf32> has no panel layout

// -----

func.func @panel(%p: memref<6x8xf32, #gemmir.panel<0, 3, 2>>) {
  func.return
}
// CHECK: panel stride 2 is less than the width 3

// -----

func.func @rank_one(%x: vector<6x1xf32>, %y: vector<1x8xf32>, %z: vector<6x4xf32>) {
  %s = gemmir.outerproduct %x, %y, %z : vector<6x1xf32>, vector<1x8xf32>, vector<6x4xf32>
  func.return
}
// CHECK: gemmir.outerproduct: (6, 1) by (1, 8) is not a rank-1 update of (6, 4); expected (6, 1) by (1, 4)

// -----

func.func @wide(%a: memref<4x8xf32>, %b: memref<8x6xf32>, %c: memref<4x6xf64>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<4x8xf32>, memref<8x6xf32>, memref<4x6xf64>
  func.return
}
// CHECK: gemmir.gemm: C is f64, and products of f32 are summed in f32

// -----

func.func @wide(%a: memref<4x8xi32>, %b: memref<8x6xi32>, %c: memref<4x6xi32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<4x8xi32>, memref<8x6xi32>, memref<4x6xi32>
  func.return
}
// CHECK: gemmir.gemm: no products of i32; use i8 or ui8

// -----

func.func @half(%a: memref<4x8xf16>, %b: memref<8x6xf16>, %c: memref<4x6xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 precision <bf16x1> : memref<4x8xf16>, memref<8x6xf16>, memref<4x6xf32>
  func.return
}
// CHECK: gemmir.gemm: precision bf16x1 is for f32, not for f16

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[0, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: a block of [0, 128] has no elements

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: the map (d0) -> (d0) does not number (8, 128)

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 3>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: 3 buffers of a block are not 1 or 2

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>, #pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: 2 blocks of 1 arrays

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["sequential"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: semantics ['sequential'] of a grid (3,)

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel", "parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: semantics ['parallel', 'parallel'] of a grid (3,)

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%o: memref<8x128xf32, #gemmir.space<vmem>>, %i: index):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: the body begins with 1 indices

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: the body takes one block an array

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: memref<8x128xf32> is not a buffer in VMEM

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>, %n: index):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: index is not a buffer in VMEM

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x64xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: a block of [8, 128] is not memref<8x64xf32, #gemmir.space<vmem>>

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xbf16, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: memref<8x128xbf16, #gemmir.space<vmem>> of memref<20x128xf32>

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0, d1) -> (d0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: does not cut memref<20x128xf32>

// -----

func.func @f(%y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["parallel"] outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0)[s0] -> (s0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: needs more than 0 rows

// -----

func.func @f(%x: vector<8x16xbf16>, %y: vector<8x128xbf16>) {
  %z = pallas.dot %x, %y : vector<8x16xbf16>, vector<8x128xbf16> -> vector<8x128xf32>
  func.return
}
// CHECK: pallas.dot: (8, 16) by (8, 128) is not (8, 128)

// -----

func.func @f(%x: vector<8x16xbf16>, %y: vector<16x128xf32>) {
  %z = pallas.dot %x, %y : vector<8x16xbf16>, vector<16x128xf32> -> vector<8x128xf32>
  func.return
}
// CHECK: pallas.dot: products of bf16 and f32 in f32

// -----

func.func @f(%x: vector<8x16xbf16>, %y: vector<16x128xbf16>) {
  %z = pallas.dot %x, %y precision <bf16x3> : vector<8x16xbf16>, vector<16x128xbf16> -> vector<8x128xf32>
  func.return
}
// CHECK: pallas.dot: precision bf16x3 is for f32, not for bf16

// -----

func.func @f(%offsets: memref<4xi64>) {
  %visits = gemmir.visits %offsets rows 20 : i64 by 8 : i64 : memref<4xi64> -> memref<6x5xi32, #gemmir.space<smem>>
  func.return
}
// CHECK: gemmir.visits: memref<4xi64> does not say where products begin

// -----

func.func @f(%offsets: memref<4xi32>) {
  %visits = gemmir.visits %offsets rows 20 : i64 by 0 : i64 : memref<4xi32> -> memref<6x5xi32, #gemmir.space<smem>>
  func.return
}
// CHECK: gemmir.visits: 20 rows in tiles of 0

// -----

func.func @f(%numbers: memref<5x3xi64, #gemmir.space<smem>>, %y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["arbitrary"] prefetched(%numbers : memref<5x3xi64, #gemmir.space<smem>>) along 0
    outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0)[s0] -> (s0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: pallas.call: memref<5x3xi64, #gemmir.space<smem>> is not rows of i32 in SMEM

// -----

func.func @f(%numbers: memref<5x4xi32, #gemmir.space<smem>>, %y: memref<20x128xf32>) {
  pallas.call grid [3] semantics ["arbitrary"] prefetched(%numbers : memref<5x4xi32, #gemmir.space<smem>>) along 0
    outs(%y : memref<20x128xf32>) blocks [#pallas.block<[8, 128], affine_map<(d0)[s0] -> (s0, 0)>, 2>] {
  ^bb0(%i: index, %o: memref<8x128xf32, #gemmir.space<vmem>>):
    gemmir.yield
  }
  func.return
}
// CHECK: has no column for each step along dimension 0

// -----

func.func @f(%b: memref<8x8xi4>, %s: memref<1x1x1x8xf32>, %v: memref<8x8xf32, #gemmir.panel<1, 8, 64>>) {
  gemmir.pack %b into %v scales(%s : memref<1x1x1x8xf32>) depth 4 : i64 : memref<8x8xi4> into memref<8x8xf32, #gemmir.panel<1, 8, 64>>
  func.return
}
// CHECK: gemmir.pack: 1 blocks of 4 along k are less than 8

// -----

func.func @f(%b: memref<8x8xi4>, %s: memref<2x8xf32>, %v: memref<8x8xf32, #gemmir.panel<1, 8, 64>>) {
  gemmir.pack %b into %v scales(%s : memref<2x8xf32>) depth 4 : i64 : memref<8x8xi4> into memref<8x8xf32, #gemmir.panel<1, 8, 64>>
  func.return
}
// CHECK: gemmir.pack: memref<2x8xf32> is no scale for each block and column

// -----

func.func @f(%b: memref<8x8xi4>, %s: memref<2x1x1x8xf32>, %v: memref<8x8xi16, #gemmir.panel<1, 8, 64>>) {
  gemmir.pack %b into %v scales(%s : memref<2x1x1x8xf32>) depth 4 : i64 : memref<8x8xi4> into memref<8x8xi16, #gemmir.panel<1, 8, 64>>
  func.return
}
// CHECK: gemmir.pack: scales of f32 into memref<8x8xi16

// -----

func.func @f(%b: memref<8x8xi4>, %v: memref<8x8xf32, #gemmir.panel<1, 8, 64>>) {
  gemmir.pack %b into %v depth 4 : i64 : memref<8x8xi4> into memref<8x8xf32, #gemmir.panel<1, 8, 64>>
  func.return
}
// CHECK: gemmir.pack: scales and the depth of a block go together

// -----

func.func @f(%x: vector<1x8xi4>) {
  %y = gemmir.extend %x exponent 28 : i64 : vector<1x8xi4> to vector<1x8xi16>
  func.return
}
// CHECK: gemmir.extend: an exponent of i16, which is no float

// -----

func.func @f(%a: memref<1x8xf32>, %b: memref<8x8xi4>, %s: memref<2x2x1x4xf32>, %c: memref<1x8xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 scales(%s : memref<2x2x1x4xf32>) depth 4 : i64
    : memref<1x8xf32>, memref<8x8xi4>, memref<1x8xf32>
  func.return
}
// CHECK: is no scale for each block of k, of columns, and each row

// -----

func.func @f(%b: memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>>, %s: memref<2x8xi32>) {
  gemmir.columnsum %b into %s times 128 : i64 : memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>> into memref<2x8xi32>
  func.return
}
// CHECK: gemmir.columnsum: {{.*}} is not one row

// -----

func.func @f(%b: memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>>, %s: memref<1x8xi32>) {
  gemmir.columnsum %b into %s times 256 : i64 : memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>> into memref<1x8xi32>
  func.return
}
// CHECK: gemmir.columnsum: a factor of 256, which is no byte

// -----

func.func @f(%b: memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>>, %s: memref<1x7xi32>) {
  gemmir.columnsum %b into %s times 1 : i64 : memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>> into memref<1x7xi32>
  func.return
}
// CHECK: gemmir.columnsum: extents [7, 8] of n differ

// -----

func.func @f(%b: memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>>, %s: memref<1x8xi8>) {
  gemmir.columnsum %b into %s times 1 : i64 : memref<8x8xi8, #gemmir.panel<1, 8, 64, 8, 4>> into memref<1x8xi8>
  func.return
}
// CHECK: gemmir.columnsum: sums of i8 as i8

// -----

func.func @f(%x: vector<1x8xi8>) {
  %y = gemmir.unsign %x : vector<1x8xi8> to vector<1x8xi16>
  func.return
}
// CHECK: gemmir.unsign: i8 to i16, not i8 to ui8

// -----

func.func @f(%a: memref<8x8xui8>) {
  %p = memref.alloc() : memref<8x8xi8, #gemmir.panel<0, 8, 64, 8, 4>>
  gemmir.pack %a into %p : memref<8x8xui8> into memref<8x8xi8, #gemmir.panel<0, 8, 64, 8, 4>>
  func.return
}
// CHECK: gemmir.pack: i8 does not hold every ui8

// -----

func.func @f(%x: vector<1x8xf32>) {
  %y, %z = gemmir.deal %x : vector<1x8xf32> to vector<1x4xf32>, vector<1x2xf32>
  func.return
}
// CHECK: gemmir.deal: vectors of different types

// -----

func.func @f(%x: vector<1x8xf32>) {
  %y, %z = gemmir.deal %x : vector<1x8xf32> to vector<1x8xf32>, vector<1x8xf32>
  func.return
}
// CHECK: gemmir.deal: 1 times vector<1x8xf32> and 2 times vector<1x8xf32>

// -----

func.func @f(%x: !amx.tile<17x16xf32>) {
  func.return
}
// CHECK: a tile of 17 rows of 64 bytes; it has up to 16 rows of up to 64 bytes, in words of 4

// -----

func.func @f(%x: !amx.tile<16x16xf64>) {
  func.return
}
// CHECK: a tile of 16 rows of 128 bytes

// -----

func.func @f(%a: memref<16x32xbf16, strided<[1, 16]>>, %i: index) {
  %x = amx.tile_load %a[%i, %i] : memref<16x32xbf16, strided<[1, 16]>> into !amx.tile<16x32xbf16>
  func.return
}
// CHECK: amx.tile_load: rows of memref<16x32xbf16, strided<[1, 16]>> are not adjacent

// -----

func.func @f(%a: memref<16x32xbf16, #gemmir.panel<0, 16, 512, 16, 2>>, %i: index) {
  %x = amx.tile_load %a[%i, %i] : memref<16x32xbf16, #gemmir.panel<0, 16, 512, 16, 2>> into !amx.tile<16x32xbf16>
  func.return
}
// CHECK: amx.tile_load: rows of !amx.tile<16x32xbf16> are not adjacent in memref<16x32xbf16, #gemmir.panel<0, 16, 512, 16, 2>>

// -----

func.func @f(%a: memref<16x32xf32>, %i: index) {
  %x = amx.tile_load %a[%i, %i] : memref<16x32xf32> into !amx.tile<16x32xbf16>
  func.return
}
// CHECK: amx.tile_load: !amx.tile<16x32xbf16> of memref<16x32xf32>

// -----

func.func @f(%c: memref<16x32xbf16, #gemmir.panel<0, 16, 512, 16, 32>>, %x: !amx.tile<16x32xbf16>, %i: index) {
  amx.tile_store %c[%i, %i], %x : memref<16x32xbf16, #gemmir.panel<0, 16, 512, 16, 32>>, !amx.tile<16x32xbf16>
  func.return
}
// CHECK: amx.tile_store: memref<16x32xbf16, #gemmir.panel<0, 16, 512, 16, 32>> has panels

// -----

func.func @f(%x: !amx.tile<16x64xi8>, %y: !amx.tile<16x16xf32>) {
  %z = amx.tile_mulf %x, %x, %y : !amx.tile<16x64xi8>, !amx.tile<16x64xi8>, !amx.tile<16x16xf32>
  func.return
}
// CHECK: amx.tile_mulf: no products of i8 and i8

// -----

func.func @f(%x: !amx.tile<16x32xbf16>, %y: !amx.tile<16x16xi32>) {
  %z = amx.tile_mulf %x, %x, %y : !amx.tile<16x32xbf16>, !amx.tile<16x32xbf16>, !amx.tile<16x16xi32>
  func.return
}
// CHECK: amx.tile_mulf: sums are f32, and not !amx.tile<16x16xi32>

// -----

func.func @f(%x: !amx.tile<16x32xbf16>, %y: !amx.tile<8x32xbf16>, %z: !amx.tile<16x16xf32>) {
  %w = amx.tile_mulf %x, %y, %z : !amx.tile<16x32xbf16>, !amx.tile<8x32xbf16>, !amx.tile<16x16xf32>
  func.return
}
// CHECK: amx.tile_mulf: !amx.tile<16x32xbf16> by !amx.tile<8x32xbf16> is not !amx.tile<16x16xf32>

// -----

func.func @f(%a: memref<12x9xf32, #gemmir.panel<0, 6, 54, 6, 2, 3>>) {
  func.return
}
// CHECK: panel step 3 is no multiple of the depth 2
