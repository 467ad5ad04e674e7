// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=8,128 over=grid},gemmir-promote{operand=c to=vmem},gemmir-tile{loops=k sizes=128},gemmir-promote{operand=a to=vmem},gemmir-promote{operand=b to=vmem},gemmir-pipeline{loop=k stages=2 with=dma},gemmir-vectorize{with=mxu}' | filecheck %s

func.func @gemm(%a: memref<20x300xbf16>, %b: memref<300x256xbf16>, %c: memref<20x256xf32>) {
  gemmir.gemm %a, %b, %c alpha 2.0 : f64 beta 1.0 : f64
    : memref<20x300xbf16>, memref<300x256xbf16>, memref<20x256xf32>
  func.return
}

// 3 x 2 blocks of C and 3 slices of k. C is an input too, for beta. The accumulator is scratch.

// CHECK:      pallas.call grid [3 : i64, 2 : i64, 3 : i64] semantics ["parallel", "parallel", "arbitrary"]
// CHECK-SAME:   ins(%a, %b, %c : memref<20x300xbf16>, memref<300x256xbf16>, memref<20x256xf32>) outs(%c : memref<20x256xf32>)
// CHECK-SAME:   blocks [#pallas.block<[8, 128], affine_map<(d0, d1, d2) -> (d0, d2)>, 2>, #pallas.block<[128, 128], affine_map<(d0, d1, d2) -> (d2, d1)>, 2>, #pallas.block<[8, 128], affine_map<(d0, d1, d2) -> (d0, d1)>, 2>, #pallas.block<[8, 128], affine_map<(d0, d1, d2) -> (d0, d1)>, 2>]
// CHECK-NEXT: ^bb0(%i: index, %j: index, %p: index,
// CHECK-SAME:   %a_block: memref<8x128xbf16, #gemmir.space<vmem>>, %b_block: memref<128x128xbf16, #gemmir.space<vmem>>, %c_block: memref<8x128xf32, #gemmir.space<vmem>>, [[OUT:%\w+]]: memref<8x128xf32, #gemmir.space<vmem>>, %acc: memref<8x128xf32, #gemmir.space<vmem>>):

// The last slice has 44 of 128: both are read up to there, with zeros behind. Rows are whole.

// CHECK:        [[START:%\w+]] = arith.muli %p
// CHECK:        [[K:%\w+]] = arith.minsi
// CHECK:        memref.subview %a_block[0, 0] [8, [[K]]]
// CHECK-NEXT:   [[A:%\w+]] = vector.transfer_read {{.*}} {in_bounds = [true, false]}
// CHECK-NEXT:   memref.subview %b_block[0, 0] [[[K]], 128]
// CHECK-NEXT:   [[B:%\w+]] = vector.transfer_read {{.*}} {in_bounds = [false, true]}
// CHECK-NEXT:   [[PRODUCT:%\w+]] = pallas.dot [[A]], [[B]] : vector<8x128xbf16>, vector<128x128xbf16> -> vector<8x128xf32>

// The first slice begins with zeros.

// CHECK-NEXT:   [[OLD:%\w+]] = vector.transfer_read %acc
// CHECK-NEXT:   [[BEFORE:%\w+]] = arith.select [[FIRST:%\w+]], {{%\w+}}, [[OLD]] : vector<8x128xf32>
// CHECK-NEXT:   [[SUM:%\w+]] = arith.addf [[BEFORE]], [[PRODUCT]] : vector<8x128xf32>
// CHECK-NEXT:   vector.transfer_write [[SUM]], %acc

// The last one writes back: alpha times the sum, and the old elements.

// CHECK:        scf.if [[LAST:%\w+]] {
// CHECK-NEXT:     [[TOTAL:%\w+]] = vector.transfer_read %acc
// CHECK-NEXT:     [[C:%\w+]] = vector.transfer_read %c_block
// CHECK-NEXT:     [[SCALED:%\w+]] = arith.mulf [[TOTAL]]
// CHECK-NEXT:     [[NEW:%\w+]] = arith.addf [[SCALED]], [[C]]
// CHECK-NEXT:     vector.transfer_write [[NEW]], [[OUT]]
// CHECK:        gemmir.yield
