// RUN: xdsl-opt %s -p 'gemmir-otherwise' | filecheck %s

func.func @gemm(%m: index) attributes {gemmir.turn = "done"} {
  func.return
}
func.func private @gemm.m8(%m: index) {
  func.return
}
func.func private @gemm.more(%m: index) attributes {gemmir.turn = "waiting"} {
  func.return
}

// The version is done, and what has waited is worked on.

// CHECK: func.func @gemm(%m: index) attributes {gemmir.turn = "done"}
// CHECK: func.func private @gemm.m8(%m: index) attributes {gemmir.turn = "done"}
// CHECK: func.func private @gemm.more(%m: index) {
