// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=4,8 over=blocks},gemmir-persist{blocks=4}' | filecheck %s --check-prefix=BLOCKS
// RUN: xdsl-opt %s -p 'gemmir-tile{loops=m,n sizes=8,8 over=clusters},gemmir-interchange{order=m,n group=2},gemmir-tile{loops=m sizes=4 over=blocks},gemmir-persist{blocks=2}' | filecheck %s --check-prefix=CLUSTERS

func.func @gemm(%a: memref<12x5xf32>, %b: memref<5x16xf32>, %c: memref<12x16xf32>) {
  gemmir.gemm %a, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : memref<12x5xf32>, memref<5x16xf32>, memref<12x16xf32>
  func.return
}

// Four blocks take six tiles, 3 x 2 of them, numbered with n fastest.

// BLOCKS:      [[TWO:%\w+]] = arith.constant 2 : index
// BLOCKS:      gemmir.forall %block = %0 to [[FOUR:%\w+]] step [[ONE:%\w+]] over blocks {
// BLOCKS-NEXT:   scf.for %tile = %block to [[SIX:%\w+]] step [[FOUR]] {
// BLOCKS-NEXT:     [[ACROSS:%\w+]] = arith.remui %tile, [[TWO]] : index
// BLOCKS-NEXT:     %j = arith.muli [[ACROSS]], {{%\w+}} : index
// BLOCKS-NEXT:     [[DOWN:%\w+]] = arith.divui %tile, [[TWO]] : index
// BLOCKS-NEXT:     %i = arith.muli [[DOWN]], {{%\w+}} : index
// BLOCKS-NEXT:     memref.subview %a[%i, 0] [4, 5]
// BLOCKS-NEXT:     memref.subview %b[0, %j] [5, 8]
// BLOCKS-NEXT:     memref.subview %c[%i, %j] [4, 8]
// BLOCKS-NEXT:     gemmir.gemm
// BLOCKS-NEXT:   } {gemmir.dim = "tiles"}
// BLOCKS-NEXT: } {gemmir.dim = "tiles"}

// Clusters that were numbered before keep their order; a block keeps its part of every tile.

// CLUSTERS:      gemmir.forall %cluster = %0 to {{%\w+}} step {{%\w+}} over clusters {
// CLUSTERS-NEXT:   gemmir.forall [[PART:%\w+]] = %0 to {{%\w+}} step {{%\w+}} over blocks {
// CLUSTERS-NEXT:     scf.for %tile = %cluster to {{%\w+}} step {{%\w+}} {
// CLUSTERS-NEXT:       arith.divui %tile
// CLUSTERS:            arith.minsi [[PART]]
// CLUSTERS:            gemmir.gemm
// CLUSTERS-NEXT:     } {gemmir.dim = "tiles"}
// CLUSTERS-NEXT:   } {gemmir.dim = "m"}
// CLUSTERS-NEXT: } {gemmir.dim = "tiles"}
