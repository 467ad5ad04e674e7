// RUN: xdsl-opt %s -p 'gemmir-tile{loops=n,group,m sizes=128,1,8 over=grid}' | filecheck %s
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=n,group,m sizes=128,1,8 over=grid},gemmir-promote{operand=c to=vmem},gemmir-promote{operand=a to=vmem},gemmir-promote{operand=b to=vmem},gemmir-pipeline{loop=group stages=2 with=dma},gemmir-vectorize{with=mxu}' | filecheck %s --check-prefix=CALL

func.func @gemm(%a: memref<20x128xf32>, %b: memref<3x128x256xf32>, %offsets: memref<4xi32>, %c: memref<20x256xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %three = arith.constant 3 : index
  %twenty = arith.constant 20 : index
  scf.for %g = %zero to %three step %one {
    %after = arith.addi %g, %one : index
    %x = memref.load %offsets[%g] : memref<4xi32>
    %begin = arith.index_cast %x : i32 to index
    %y = memref.load %offsets[%after] : memref<4xi32>
    %end = arith.index_cast %y : i32 to index
    %length = arith.subi %end, %begin : index
    %rows = arith.minsi %length, %twenty : index
    %ag = memref.subview %a[%begin, 0] [%rows, 128] [1, 1]
        : memref<20x128xf32> to memref<?x128xf32, strided<[128, 1], offset: ?>>
    %bg = memref.subview %b[%g, 0, 0] [1, 128, 256] [1, 1, 1]
        : memref<3x128x256xf32> to memref<128x256xf32, strided<[256, 1], offset: ?>>
    %cg = memref.subview %c[%begin, 0] [%rows, 256] [1, 1]
        : memref<20x256xf32> to memref<?x256xf32, strided<[256, 1], offset: ?>>
    gemmir.gemm %ag, %bg, %cg alpha 1.0 : f64 beta 0.0 : f64
        : memref<?x128xf32, strided<[128, 1], offset: ?>>,
          memref<128x256xf32, strided<[256, 1], offset: ?>>,
          memref<?x256xf32, strided<[256, 1], offset: ?>>
  } {gemmir.dim = "group"}
  func.return
}

// Twenty rows of three products are three tiles of eight, and at most five visits of them. Views are
// cut from the tile, whose rows the visit says: those of A and C begin where the product does in it.

// CHECK:      [[VISITS:%\w+]] = gemmir.visits %offsets rows 20 : i64 by 8 : i64 : memref<4xi32> -> memref<6x5xi32, #gemmir.space<smem>>
// CHECK-NEXT: gemmir.forall %j = {{.*}} over grid {
// CHECK-NEXT:   gemmir.forall %v = %zero to {{%\w+}} step %one over grid {
// CHECK-NEXT:     [[P:%\w+]] = memref.load [[VISITS]]{{\[}}%zero, %v]
// CHECK-NEXT:     %product = arith.index_cast [[P]] : i32 to index
// CHECK-NEXT:     [[T:%\w+]] = memref.load [[VISITS]]{{\[}}%one, %v]
// CHECK-NEXT:     %tile = arith.index_cast [[T]] : i32 to index
// CHECK:          %i = arith.muli %tile
// CHECK:          [[TILE:%\w+]] = memref.subview %a[%i, 0]
// CHECK-NEXT:     memref.subview [[TILE]][%begin, 0] [%rows, 128]
// CHECK:          memref.subview %b[%product, 0, 0]
// CHECK:          gemmir.gemm
// CHECK:        } {gemmir.dim = "group"}
// CHECK-NEXT: } {gemmir.dim = "n"}

// The numbers are prefetched, and find the blocks. C is an input too: where the first visit of a tile
// leaves rows out, its block begins with the old elements, which are read only then. A visit with rows
// stores those alone.

// CALL:      pallas.call grid [2 : i64, 5 : i64] semantics ["parallel", "arbitrary"] prefetched({{%\w+}} : memref<6x5xi32, #gemmir.space<smem>>) along 1 : i64
// CALL-SAME:   ins(%a, %b, %c : {{.*}}) outs(%c : memref<20x256xf32>)
// CALL-SAME:   blocks [#pallas.block<[8, 128], affine_map<(d0, d1)[s0, s1, s2, s3, s4, s5] -> (s1, 0)>, 2>, #pallas.block<[1, 128, 128], affine_map<(d0, d1)[s0, s1, s2, s3, s4, s5] -> (s0, 0, d0)>, 2>, #pallas.block<[8, 128], affine_map<(d0, d1)[s0, s1, s2, s3, s4, s5] -> (s5, d0)>, 2>, #pallas.block<[8, 128], affine_map<(d0, d1)[s0, s1, s2, s3, s4, s5] -> (s1, d0)>, 2>]
// CALL:        [[FIRST:%\w+]] = arith.cmpi eq, %takes_old
// CALL-NEXT:   scf.if [[FIRST]] {
// CALL-NEXT:     [[OLD:%\w+]] = vector.transfer_read %c_block{{\[}}
// CALL-NEXT:     vector.transfer_write [[OLD]], [[NEW:%\w+]]{{\[}}
// CALL:        [[SOME:%\w+]] = arith.cmpi slt
// CALL-NEXT:   scf.if [[SOME]] {
// CALL:          [[SUM:%\w+]] = pallas.dot
// CALL:          %before = vector.create_mask %begin
// CALL-NEXT:     %until = vector.create_mask %end
// CALL-NEXT:     [[MASK:%\w+]] = arith.xori %before, %until : vector<8x128xi1>
// CALL-NEXT:     vector.transfer_write [[SUM]], [[NEW]]{{\[}}%zero, %zero], [[MASK]]
