// RUN: xdsl-opt %s -p 'gemmir-promote{operand=b to=l3 layout="panel:8"},gemmir-prepack{operand=b}' | filecheck %s

func.func @gemm(%a: memref<7x5xf32> {gemmir.name = "a", gemmir.access = "read"},
                %b: memref<5x12xf32> {gemmir.name = "b", gemmir.access = "read"},
                %c: memref<7x12xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64
    : memref<7x5xf32>, memref<5x12xf32>, memref<7x12xf32>
  func.return
}

// The function that is called as before owns the buffer.

// CHECK:      func.func @gemm(%a: memref<7x5xf32>
// CHECK-NEXT:   %b_packed = memref.alloc()
// CHECK-NEXT:   func.call @gemm_pack_b(%b, %b_packed)
// CHECK-NEXT:   func.call @gemm_packed_b(%a, %b_packed, %c)
// CHECK-NEXT:   memref.dealloc %b_packed
// CHECK-NEXT:   func.return

// The type of the packed operand says how it lies.

// CHECK:      func.func nested @gemm_packed_b(%a: memref<7x5xf32> {{.*}}, %b_packed: memref<5x16xf32, #gemmir.panel<1, 8, 40>, #gemmir.space<l3>> {gemmir.name = "b", gemmir.access = "read"}
// CHECK-NEXT:   [[VIEW:%\w+]] = memref.subview %b_packed[0, 0] [5, 12] [1, 1]
// CHECK-NEXT:   gemmir.gemm %a, [[VIEW]], %c
// CHECK-NEXT:   func.return

// CHECK:      func.func nested @gemm_pack_b(%b: memref<5x12xf32> {{.*}}, %packed: memref<5x16xf32, #gemmir.panel<1, 8, 40>, #gemmir.space<l3>> {gemmir.name = "packed", gemmir.access = "write"}) {
// CHECK-NEXT:   [[WINDOW:%\w+]] = memref.subview %packed[0, 0] [5, 12] [1, 1]
// CHECK-NEXT:   gemmir.pack %b into [[WINDOW]]
// CHECK-NEXT:   func.return
