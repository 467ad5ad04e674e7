// The up-projection of BERT-base's MLP for 128 tokens, h = x W + r, as standard MLIR: linalg on
// memrefs. The product is added to what %h holds. Try:
//
//   gemmir compile examples/mlp.mlir
//   gemmir opt examples/mlp.mlir --to tiled
//   gemmir run examples/mlp.mlir
#tokens  = affine_map<(m, n, k) -> (m, k)>
#weights = affine_map<(m, n, k) -> (k, n)>
#hidden  = affine_map<(m, n, k) -> (m, n)>

func.func @mlp(%x: memref<128x768xf32>, %w: memref<768x3072xf32>, %h: memref<128x3072xf32>) {
  linalg.generic {
    indexing_maps = [#tokens, #weights, #hidden],
    iterator_types = ["parallel", "parallel", "reduction"]
  } ins(%x, %w : memref<128x768xf32>, memref<768x3072xf32>) outs(%h : memref<128x3072xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %product = arith.mulf %a, %b : f32
    %sum = arith.addf %c, %product : f32
    linalg.yield %sum : f32
  }
  func.return
}
