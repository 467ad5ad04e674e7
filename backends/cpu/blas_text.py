"""The LLVM text of a BLAS interface, with `$fields` for what differs between types and names.

A core for each element type works on column-major arrays and returns the number of a wrong
argument; the functions that Fortran and C call bring their arguments to it.
"""

from __future__ import annotations

from typing import Final

COMMON: Final = """\
declare i32 @dprintf(i32, ptr, ...)

@RowMajorStrg = extern_weak global i32
@MKL_Get_Version = extern_weak global i8

@no.format = internal constant [1 x i8] zeroinitializer
@message = internal constant [61 x i8]
  c" ** On entry to %s parameter number %d had an illegal value\\0A\\00"

; Whether an operand is transposed, by the letter of Fortran: 0, 1, or -1 where it is none.
define internal i32 @by.letter(i8 %letter) {
  %upper = and i8 %letter, 223
  %is.n = icmp eq i8 %upper, 78
  %is.t = icmp eq i8 %upper, 84
  %is.c = icmp eq i8 %upper, 67
  %is.transposed = or i1 %is.t, %is.c
  %known = select i1 %is.transposed, i32 1, i32 -1
  %found = select i1 %is.n, i32 0, i32 %known
  ret i32 %found
}

; The same by the number of C: 111 no, 112 yes, 113 also conjugate.
define internal i32 @by.number(i32 %number) {
  %is.n = icmp eq i32 %number, 111
  %is.t = icmp eq i32 %number, 112
  %is.c = icmp eq i32 %number, 113
  %is.transposed = or i1 %is.t, %is.c
  %known = select i1 %is.transposed, i32 1, i32 -1
  %found = select i1 %is.n, i32 0, i32 %known
  ret i32 %found
}
"""
"""What all entries share. `RowMajorStrg` is how the reference CBLAS tells its `cblas_xerbla` that
operands are exchanged; MKL has a `cblas_xerbla` with other arguments, which is not called."""

CORE: Final = """\
$declarations
@products.$dtype = internal constant [8 x ptr] [$table]

; Column-major C = alpha op(A) op(B) + beta C, or the number of the first wrong argument of Fortran.
define internal i32 @gemm.$dtype(i32 %trans.a, i32 %trans.b, i64 %m, i64 %n, i64 %k, ptr %alpha,
    ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %beta, ptr %c, i64 %ldc) {
entry:
  %a.is.plain = icmp eq i32 %trans.a, 0
  %b.is.plain = icmp eq i32 %trans.b, 0
  %a.rows = select i1 %a.is.plain, i64 %m, i64 %k
  %b.rows = select i1 %b.is.plain, i64 %k, i64 %n
  %a.least = call i64 @llvm.smax.i64(i64 %a.rows, i64 1)
  %b.least = call i64 @llvm.smax.i64(i64 %b.rows, i64 1)
  %c.least = call i64 @llvm.smax.i64(i64 %m, i64 1)
  %ldc.is.short = icmp slt i64 %ldc, %c.least
  %ldb.is.short = icmp slt i64 %ldb, %b.least
  %lda.is.short = icmp slt i64 %lda, %a.least
  %k.is.negative = icmp slt i64 %k, 0
  %n.is.negative = icmp slt i64 %n, 0
  %m.is.negative = icmp slt i64 %m, 0
  %b.is.unknown = icmp slt i32 %trans.b, 0
  %a.is.unknown = icmp slt i32 %trans.a, 0
  %wrong.13 = select i1 %ldc.is.short, i32 13, i32 0
  %wrong.10 = select i1 %ldb.is.short, i32 10, i32 %wrong.13
  %wrong.8 = select i1 %lda.is.short, i32 8, i32 %wrong.10
  %wrong.5 = select i1 %k.is.negative, i32 5, i32 %wrong.8
  %wrong.4 = select i1 %n.is.negative, i32 4, i32 %wrong.5
  %wrong.3 = select i1 %m.is.negative, i32 3, i32 %wrong.4
  %wrong.2 = select i1 %b.is.unknown, i32 2, i32 %wrong.3
  %wrong = select i1 %a.is.unknown, i32 1, i32 %wrong.2
  %is.wrong = icmp ne i32 %wrong, 0
  br i1 %is.wrong, label %return, label %checked
return:
  ret i32 %wrong
checked:
  %m.is.0 = icmp eq i64 %m, 0
  %n.is.0 = icmp eq i64 %n, 0
  %is.empty = or i1 %m.is.0, %n.is.0
  br i1 %is.empty, label %done, label %full
full:
  %alpha.is = load $t, ptr %alpha
  %alpha.is.0 = fcmp oeq $t %alpha.is, 0.0
  %k.is.0 = icmp eq i64 %k, 0
  %is.scaled = or i1 %alpha.is.0, %k.is.0
  br i1 %is.scaled, label %scaled, label %multiplied
scaled:
  call void @scale.$dtype(i64 %m, i64 %n, ptr %beta, ptr %c, i64 %ldc)
  br label %done
multiplied:
  %which.b = shl i32 %trans.b, 1
  %which = or i32 %which.b, %trans.a
  %place = getelementptr [8 x ptr], ptr @products.$dtype, i32 0, i32 %which
  %product = load ptr, ptr %place
  %status = call i32 %product($arguments)
  %has.memory = icmp eq i32 %status, 0
  br i1 %has.memory, label %done, label %spared
spared:
  %spare.place = getelementptr ptr, ptr %place, i32 4
  %spare = load ptr, ptr %spare.place
  %spare.status = call i32 %spare($arguments)
  br label %done
done:
  ret i32 0
}

; Column-major C = beta C; C is not read where beta is 0, and left alone where it is 1.
define internal void @scale.$dtype(i64 %m, i64 %n, ptr %beta, ptr %c, i64 %ldc) {
entry:
  %factor = load $t, ptr %beta
  %is.0 = fcmp oeq $t %factor, 0.0
  %is.1 = fcmp oeq $t %factor, 1.0
  br i1 %is.1, label %done, label %column
column:
  %j = phi i64 [ 0, %entry ], [ %j.next, %column.end ]
  %offset = mul i64 %j, %ldc
  %first = getelementptr $t, ptr %c, i64 %offset
  br label %element
element:
  %i = phi i64 [ 0, %column ], [ %i.next, %stored ]
  %at = getelementptr $t, ptr %first, i64 %i
  br i1 %is.0, label %stored, label %read
read:
  %old = load $t, ptr %at
  %new = fmul $t %old, %factor
  br label %stored
stored:
  %value = phi $t [ 0.0, %element ], [ %new, %read ]
  store $t %value, ptr %at
  %i.next = add i64 %i, 1
  %more.rows = icmp slt i64 %i.next, %m
  br i1 %more.rows, label %element, label %column.end
column.end:
  %j.next = add i64 %j, 1
  %more.columns = icmp slt i64 %j.next, %n
  br i1 %more.columns, label %column, label %done
done:
  ret void
}
"""
"""The work on column-major arrays. Their transposes are row-major, and B' A' is the transpose of
A B: so the product of the library gets B as A and A as B."""

ERRORS: Final = """\
declare extern_weak void @$xerbla(ptr, ptr, i64)
declare extern_weak void @$cblas_xerbla($integer, ptr, ptr, ...)

; Tells that argument `info` of the function `name` is wrong.
define internal void @wrong.$xerbla(ptr %name, i64 %length, i32 %info) {
  %info.at = alloca $integer
  %number = $info
  store $integer %number, ptr %info.at
  %there = icmp ne ptr @$xerbla, null
  br i1 %there, label %told, label %printed
told:
  call void @$xerbla(ptr %name, ptr %info.at, i64 %length)
  ret void
printed:
  %written = call i32 (i32, ptr, ...) @dprintf(i32 2, ptr @message, ptr %name, i32 %info)
  ret void
}

; The same of a function of C. `info` counts the arguments of the column-major call, whose operands
; are those of C exchanged where `is.row` says so.
define internal void @wrong.$cblas_xerbla(ptr %name, i64 %length, i32 %info, i1 %is.row) {
  %is.4 = icmp eq i32 %info, 4
  %is.5 = icmp eq i32 %info, 5
  %is.9 = icmp eq i32 %info, 9
  %is.11 = icmp eq i32 %info, 11
  %x.4 = select i1 %is.4, i32 5, i32 %info
  %x.5 = select i1 %is.5, i32 4, i32 %x.4
  %x.9 = select i1 %is.9, i32 11, i32 %x.5
  %x.11 = select i1 %is.11, i32 9, i32 %x.9
  %own = select i1 %is.row, i32 %x.11, i32 %info
  %there = icmp ne ptr @$cblas_xerbla, null
  %is.other = icmp ne ptr @MKL_Get_Version, null
  %is.missing = xor i1 %there, true
  %is.left = or i1 %is.missing, %is.other
  br i1 %is.left, label %fortran, label %c
fortran:
  call void @wrong.$xerbla(ptr %name, i64 %length, i32 %own)
  ret void
c:
  %exchanges = icmp ne ptr @RowMajorStrg, null
  br i1 %exchanges, label %exchanged, label %told
exchanged:
  %row = zext i1 %is.row to i32
  store i32 %row, ptr @RowMajorStrg
  br label %told
told:
  %found = phi i32 [ %own, %c ], [ %info, %exchanged ]
  %number = $found
  call void ($integer, ptr, ptr, ...) @$cblas_xerbla($integer %number, ptr %name, ptr @no.format)
  ret void
}
"""
"""Who is told of a wrong argument."""

ENTRIES: Final = """\
@name.$fortran = internal constant [7 x i8] c"$fortran_name\\00"
@name.$cblas = internal constant [12 x i8] c"$cblas_name\\00"

define void @$fortran(ptr %trans.a.at, ptr %trans.b.at, ptr %m.at, ptr %n.at, ptr %k.at,
    ptr %alpha, ptr %a, ptr %lda.at, ptr %b, ptr %ldb.at, ptr %beta, ptr %c, ptr %ldc.at) {
entry:
$loads
  %letter.a = load i8, ptr %trans.a.at
  %letter.b = load i8, ptr %trans.b.at
  %trans.a = call i32 @by.letter(i8 %letter.a)
  %trans.b = call i32 @by.letter(i8 %letter.b)
  %wrong = call i32 @gemm.$dtype(i32 %trans.a, i32 %trans.b, i64 %m, i64 %n, i64 %k, ptr %alpha,
    ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %beta, ptr %c, i64 %ldc)
  %is.wrong = icmp ne i32 %wrong, 0
  br i1 %is.wrong, label %told, label %done
told:
  call void @wrong.$xerbla(ptr @name.$fortran, i64 6, i32 %wrong)
  br label %done
done:
  ret void
}

define void @$cblas(i32 %order, i32 %number.a, i32 %number.b, $integer %m.given,
    $integer %n.given, $integer %k.given, $t %alpha.is, ptr %a, $integer %lda.given, ptr %b,
    $integer %ldb.given,
    $t %beta.is, ptr %c, $integer %ldc.given) {
entry:
  %alpha = alloca $t
  %beta = alloca $t
  store $t %alpha.is, ptr %alpha
  store $t %beta.is, ptr %beta
$sizes
  %trans.a = call i32 @by.number(i32 %number.a)
  %trans.b = call i32 @by.number(i32 %number.b)
  %is.row = icmp eq i32 %order, 101
  %is.column = icmp eq i32 %order, 102
  %is.known = or i1 %is.row, %is.column
  %a.is.unknown = icmp slt i32 %trans.a, 0
  %b.is.unknown = icmp slt i32 %trans.b, 0
  %wrong.3 = select i1 %b.is.unknown, i32 3, i32 0
  %wrong.2 = select i1 %a.is.unknown, i32 2, i32 %wrong.3
  %wrong.early = select i1 %is.known, i32 %wrong.2, i32 1
  %is.early = icmp ne i32 %wrong.early, 0
  br i1 %is.early, label %told, label %run
run:
  br i1 %is.row, label %row, label %column
row:
  %row.wrong = call i32 @gemm.$dtype(i32 %trans.b, i32 %trans.a, i64 %n, i64 %m, i64 %k,
    ptr %alpha, ptr %b, i64 %ldb, ptr %a, i64 %lda, ptr %beta, ptr %c, i64 %ldc)
  br label %ran
column:
  %column.wrong = call i32 @gemm.$dtype(i32 %trans.a, i32 %trans.b, i64 %m, i64 %n, i64 %k,
    ptr %alpha, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %beta, ptr %c, i64 %ldc)
  br label %ran
ran:
  %wrong.fortran = phi i32 [ %row.wrong, %row ], [ %column.wrong, %column ]
  %is.wrong = icmp ne i32 %wrong.fortran, 0
  %wrong.late = add i32 %wrong.fortran, 1
  br i1 %is.wrong, label %told, label %done
told:
  %wrong = phi i32 [ %wrong.early, %entry ], [ %wrong.late, %ran ]
  call void @wrong.$cblas_xerbla(ptr @name.$cblas, i64 11, i32 %wrong, i1 %is.row)
  br label %done
done:
  ret void
}
"""
"""What a program calls."""
