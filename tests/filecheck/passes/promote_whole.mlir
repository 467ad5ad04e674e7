// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=vmem},gemmir-tile{loops=n,m sizes=128,8 over=grid},gemmir-promote{operand=c to=vmem},gemmir-promote{operand=b to=vmem},gemmir-pipeline{loop=m stages=2 with=dma},gemmir-tile{loops=n sizes=64},gemmir-vectorize{with=mxu}' | filecheck %s

func.func @gemm(%a: memref<16x256xbf16>, %b: memref<256x256xbf16>, %c: memref<16x256xbf16>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<16x256xbf16>, memref<256x256xbf16>, memref<16x256xbf16>
  func.return
}

// All of A is one block with one buffer, of which each step has its rows.

// CHECK:      pallas.call grid [2 : i64, 2 : i64] semantics ["parallel", "parallel"]
// CHECK-SAME:   blocks [#pallas.block<[16, 256], affine_map<(d0, d1) -> (0, 0)>, 1>, #pallas.block<[256, 128], affine_map<(d0, d1) -> (0, d0)>, 2>, #pallas.block<[8, 128], affine_map<(d0, d1) -> (d1, d0)>, 2>]
// CHECK-NEXT: ^bb0(%j: index, %i: index, %a_block: memref<16x256xbf16, #gemmir.space<vmem>>,

// The loop inside a step multiplies half of the columns of the block at a time.

// CHECK:        [[ROW:%\w+]] = arith.muli %i
// CHECK:        scf.for [[COLUMN:%\w+]] =
// CHECK:          [[A:%\w+]] = vector.transfer_read %a_block[[[ROW]], %{{\w+}}], {{.*}} vector<8x256xbf16>
// CHECK-NEXT:     [[B:%\w+]] = vector.transfer_read %b_block[%{{\w+}}, [[COLUMN]]], {{.*}} vector<256x64xbf16>
// CHECK-NEXT:     [[Z:%\w+]] = pallas.dot [[A]], [[B]]
// CHECK-NEXT:     vector.transfer_write [[Z]], %acc[%{{\w+}}, [[COLUMN]]]
// CHECK:        } {gemmir.dim = "n"}
// CHECK:        arith.truncf
// CHECK-NEXT:   vector.transfer_write {{%\w+}}, %c_block
