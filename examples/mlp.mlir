// The up-projection of BERT-base's MLP for 128 tokens, h = gelu(x W + bias), as standard MLIR:
// linalg on memrefs. Try:
//
//   gemmir run     examples/mlp.mlir
//   gemmir check   examples/mlp.mlir
//   gemmir compile examples/mlp.mlir
//   gemmir opt     examples/mlp.mlir --to tiled
#matrix = affine_map<(m, n) -> (m, n)>
#row    = affine_map<(m, n) -> (n)>

func.func @mlp(%x: memref<128x768xf32>, %w: memref<768x3072xf32>, %bias: memref<3072xf32>,
               %h: memref<128x3072xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%h : memref<128x3072xf32>)
  linalg.matmul ins(%x, %w : memref<128x768xf32>, memref<768x3072xf32>)
                outs(%h : memref<128x3072xf32>)

  linalg.generic {
    indexing_maps = [#row, #matrix],
    iterator_types = ["parallel", "parallel"]
  } ins(%bias : memref<3072xf32>) outs(%h : memref<128x3072xf32>) {
  ^bb0(%b: f32, %product: f32):
    %sum = arith.addf %product, %b : f32
    linalg.yield %sum : f32
  }

  // gelu(s) = s / (1 + exp(-2 u)) with u = sqrt(2 / pi) (s + 0.044715 s^3), its tanh form.
  linalg.generic {
    indexing_maps = [#matrix],
    iterator_types = ["parallel", "parallel"]
  } outs(%h : memref<128x3072xf32>) {
  ^bb0(%s: f32):
    %square = arith.mulf %s, %s : f32
    %cube = arith.mulf %square, %s : f32
    %c0 = arith.constant 0.044715 : f32
    %cubic = arith.mulf %c0, %cube : f32
    %inner = arith.addf %s, %cubic : f32
    %c1 = arith.constant -1.59576912 : f32
    %minus_2u = arith.mulf %c1, %inner : f32
    %exp = math.exp %minus_2u : f32
    %one = arith.constant 1.0 : f32
    %denominator = arith.addf %one, %exp : f32
    %gelu = arith.divf %s, %denominator : f32
    linalg.yield %gelu : f32
  }
  func.return
}
