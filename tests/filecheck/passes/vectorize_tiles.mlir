// RUN: xdsl-opt %s -p 'gemmir-promote{operand=a to=l3 layout="panel:16x32"},gemmir-promote{operand=b to=l2 layout="panel:32x2x32"},gemmir-promote{operand=c to=registers},gemmir-vectorize{with=amx width=16},gemmir-unroll{loop=k factor=2}' | filecheck %s

func.func @gemm(%a: memref<16x70xbf16>, %b: memref<70x32xbf16>, %c: memref<16x32xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<16x70xbf16>, memref<70x32xbf16>, memref<16x32xf32>
  func.return
}

// k is filled up to three whole tiles of 32, so that every tile is loaded whole, one of A for two of
// B, and what is not more than the sum goes to C from there.

// CHECK-LABEL: @gemm
// CHECK:      memref.alloc() {{.*}} : memref<16x96xbf16, #gemmir.panel<0, 16, 1536, 16, 32>, #gemmir.space<l3>>
// CHECK:      memref.alloc() {{.*}} : memref<96x32xbf16, #gemmir.panel<1, 32, 3072, 32, 2, 32>, #gemmir.space<l2>>
// CHECK:      vector.transfer_read %b[{{.*}}in_bounds = [false, true]{{.*}}vector<2x32xbf16>
// CHECK:      [[Z:%\w+]] = amx.tile_zero : !amx.tile<16x16xf32>
// CHECK:      scf.for [[K:%\w+]] = {{.*}} iter_args([[X:%\w+]] = [[Z]], [[Y:%\w+]] = {{%\w+}}) -> (!amx.tile<16x16xf32>, !amx.tile<16x16xf32>)
// CHECK-NEXT: [[A:%\w+]] = amx.tile_load {{%\w+}}[{{%\w+}}, [[K]]] : memref<16x96xbf16, #gemmir.panel<0, 16, 1536, 16, 32>, #gemmir.space<l3>> into !amx.tile<16x32xbf16>
// CHECK-NEXT: [[B:%\w+]] = amx.tile_load {{%\w+}}[[[K]], {{%\w+}}] : memref<96x32xbf16, #gemmir.panel<1, 32, 3072, 32, 2, 32>, #gemmir.space<l2>> into !amx.tile<16x32xbf16>
// CHECK-NEXT: amx.tile_mulf [[A]], [[B]], [[X]] : !amx.tile<16x32xbf16>, !amx.tile<16x32xbf16>, !amx.tile<16x16xf32>
// CHECK-NEXT: [[D:%\w+]] = amx.tile_load
// CHECK-NEXT: amx.tile_mulf [[A]], [[D]], [[Y]]
// CHECK:      amx.tile_store %c{{.*}} : memref<16x32xf32>, !amx.tile<16x16xf32>
// CHECK-NOT:  memref.alloca
