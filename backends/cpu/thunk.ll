; What stands between Python and a kernel: functions of CPython that check arrays and call machine
; code. Whatever they do not expect they hand, as it came, to a function in Python.
;
; They know two layouts that cannot change while NumPy 2 lasts: PyObject (count, type) and
; PyArrayObject_fields (numpy/ndarraytypes.h). Everything else is asked of CPython by its stable
; interface. The global interpreter lock is held, but while a kernel runs that is worth releasing it.
;
; A table is an int64 array: a head of eight words, and for each array of the kernel, the output
; last, what it must be: descriptor, dimensions, extents, strides.

%Object = type { i64, ptr }
%Array = type { %Object, ptr, i32, ptr, ptr, ptr, ptr, i32 }
%Table = type { ptr, i64, i64, i64, i64, i64, i64, i64, [0 x i64] }
; entry, inputs, whether to release the lock, whether to make an output that is not given,
; bits of an address that must be 0, longest input in bytes, bytes of the output, the third
; argument of matmul that it is for

@PyArray_Type = external global i8
@_Py_NoneStruct = external global i8

declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyList_GetItem(ptr, i64)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @PyErr_Clear()
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)

; The data of an array that `item` of a tuple is.
define internal ptr @words(ptr %tuple, i64 %item) {
  %array = call ptr @PyTuple_GetItem(ptr %tuple, i64 %item)
  %field = getelementptr %Array, ptr %array, i32 0, i32 1
  %data = load ptr, ptr %field
  ret ptr %data
}

; The words behind those at %want if an object is exactly such an array, otherwise null.
define internal ptr @fits(ptr %array, ptr %want) {
  %type.p = getelementptr %Object, ptr %array, i32 0, i32 1
  %type = load ptr, ptr %type.p
  %plain = icmp eq ptr %type, @PyArray_Type
  br i1 %plain, label %is.array, label %no
is.array:
  %descr.p = getelementptr %Array, ptr %array, i32 0, i32 6
  %descr = load i64, ptr %descr.p
  %want.descr = load i64, ptr %want
  %same.type = icmp eq i64 %descr, %want.descr
  %nd.p = getelementptr %Array, ptr %array, i32 0, i32 2
  %nd.32 = load i32, ptr %nd.p
  %nd = zext i32 %nd.32 to i64
  %want.nd.p = getelementptr i64, ptr %want, i64 1
  %want.nd = load i64, ptr %want.nd.p
  %same.nd = icmp eq i64 %nd, %want.nd
  %same = and i1 %same.type, %same.nd
  br i1 %same, label %is.like, label %no
is.like:
  %extents.p = getelementptr %Array, ptr %array, i32 0, i32 3
  %extents = load ptr, ptr %extents.p
  %strides.p = getelementptr %Array, ptr %array, i32 0, i32 4
  %strides = load ptr, ptr %strides.p
  %want.extents = getelementptr i64, ptr %want, i64 2
  %want.strides = getelementptr i64, ptr %want.extents, i64 %nd
  br label %next
next:
  %i = phi i64 [ 0, %is.like ], [ %i.next, %compare ]
  %more = icmp ult i64 %i, %nd
  br i1 %more, label %compare, label %yes
compare:
  %e.p = getelementptr i64, ptr %extents, i64 %i
  %e = load i64, ptr %e.p
  %want.e.p = getelementptr i64, ptr %want.extents, i64 %i
  %want.e = load i64, ptr %want.e.p
  %s.p = getelementptr i64, ptr %strides, i64 %i
  %s = load i64, ptr %s.p
  %want.s.p = getelementptr i64, ptr %want.strides, i64 %i
  %want.s = load i64, ptr %want.s.p
  %e.same = icmp eq i64 %e, %want.e
  %s.same = icmp eq i64 %s, %want.s
  %both = and i1 %e.same, %s.same
  %i.next = add i64 %i, 1
  br i1 %both, label %next, label %no
yes:
  %end = getelementptr i64, ptr %want.strides, i64 %nd
  ret ptr %end
no:
  ret ptr null
}

; Call a kernel with %count addresses; 0 if it has written its output.
define internal i32 @enter(ptr %entry, i64 %count, ptr %addresses, i64 %releases) {
  %release = icmp ne i64 %releases, 0
  br i1 %release, label %free, label %hold
free:
  %thread = call ptr @PyEval_SaveThread()
  %status.free = call i32 @jump(ptr %entry, i64 %count, ptr %addresses)
  call void @PyEval_RestoreThread(ptr %thread)
  ret i32 %status.free
hold:
  %status = call i32 @jump(ptr %entry, i64 %count, ptr %addresses)
  ret i32 %status
}

; The kernel itself, called with so many addresses.
; define internal i32 @jump(ptr %entry, i64 %count, ptr %addresses) is added by thunk.py.

; Run the kernel of a table on arrays that fit; null, with no error set and nothing written, if one
; does not or the kernel finds no memory. %out is an object or null.
define internal ptr @attempt(ptr %table, ptr %args, ptr %out) {
  %addresses = alloca [16 x i64]
  %inputs.p = getelementptr %Table, ptr %table, i32 0, i32 1
  %inputs = load i64, ptr %inputs.p
  %first = getelementptr %Table, ptr %table, i32 0, i32 8
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i.next, %read ]
  %want = phi ptr [ %first, %0 ], [ %want.next, %read ]
  %bits = phi i64 [ 0, %0 ], [ %bits.next, %read ]
  %more = icmp ult i64 %i, %inputs
  br i1 %more, label %look, label %output
look:
  %arg.p = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg.p
  %want.next = call ptr @fits(ptr %arg, ptr %want)
  %misfit = icmp eq ptr %want.next, null
  br i1 %misfit, label %no, label %read
read:
  %data.p = getelementptr %Array, ptr %arg, i32 0, i32 1
  %data = load i64, ptr %data.p
  %bits.next = or i64 %bits, %data
  %address.p = getelementptr i64, ptr %addresses, i64 %i
  store i64 %data, ptr %address.p
  %i.next = add i64 %i, 1
  br label %next

output:
  %count = add i64 %inputs, 1
  %mask.p = getelementptr %Table, ptr %table, i32 0, i32 4
  %mask = load i64, ptr %mask.p
  %last.p = getelementptr i64, ptr %addresses, i64 %inputs
  %given = icmp ne ptr %out, null
  br i1 %given, label %take, label %make

take:
  %end = call ptr @fits(ptr %out, ptr %want)
  %out.misfit = icmp eq ptr %end, null
  br i1 %out.misfit, label %no, label %place
place:
  %flags.p = getelementptr %Array, ptr %out, i32 0, i32 7
  %flags = load i32, ptr %flags.p
  %writeable = and i32 %flags, 1024
  %read.only = icmp eq i32 %writeable, 0
  %start.p = getelementptr %Array, ptr %out, i32 0, i32 1
  %start = load i64, ptr %start.p
  store i64 %start, ptr %last.p
  %all.bits = or i64 %bits, %start
  %odd = and i64 %all.bits, %mask
  %unaligned = icmp ne i64 %odd, 0
  %bad = or i1 %read.only, %unaligned
  %longest.p = getelementptr %Table, ptr %table, i32 0, i32 5
  %longest = load i64, ptr %longest.p
  %span.p = getelementptr %Table, ptr %table, i32 0, i32 6
  %span = load i64, ptr %span.p
  %lowest = sub i64 %start, %longest
  %past = add i64 %start, %span
  br i1 %bad, label %no, label %apart
apart:
  %j = phi i64 [ 0, %place ], [ %j.next, %beside ]
  %j.more = icmp ult i64 %j, %inputs
  br i1 %j.more, label %beside, label %run.given
beside:
  %other.p = getelementptr i64, ptr %addresses, i64 %j
  %other = load i64, ptr %other.p
  %above = icmp ugt i64 %other, %lowest
  %below = icmp ult i64 %other, %past
  %near = and i1 %above, %below
  %j.next = add i64 %j, 1
  br i1 %near, label %no, label %apart

make:
  %may.p = getelementptr %Table, ptr %table, i32 0, i32 3
  %may = load i64, ptr %may.p
  %may.make = icmp ne i64 %may, 0
  %odd.in = and i64 %bits, %mask
  %aligned = icmp eq i64 %odd.in, 0
  %making = and i1 %may.make, %aligned
  br i1 %making, label %new, label %no
new:
  %descr = load ptr, ptr %want
  call void @Py_IncRef(ptr %descr)
  %nd.p = getelementptr i64, ptr %want, i64 1
  %nd.64 = load i64, ptr %nd.p
  %nd = trunc i64 %nd.64 to i32
  %extents = getelementptr i64, ptr %want, i64 2
  %made = call ptr @PyArray_NewFromDescr(ptr @PyArray_Type, ptr %descr, i32 %nd, ptr %extents, ptr null, ptr null, i32 0, ptr null)
  %no.memory = icmp eq ptr %made, null
  br i1 %no.memory, label %clear, label %run.made
clear:
  call void @PyErr_Clear()
  ret ptr null
run.made:
  %made.p = getelementptr %Array, ptr %made, i32 0, i32 1
  %made.start = load i64, ptr %made.p
  store i64 %made.start, ptr %last.p
  br label %run

run.given:
  call void @Py_IncRef(ptr %out)
  br label %run
run:
  %result = phi ptr [ %out, %run.given ], [ %made, %run.made ]
  %entry = load ptr, ptr %table
  %releases.p = getelementptr %Table, ptr %table, i32 0, i32 2
  %releases = load i64, ptr %releases.p
  %status = call i32 @enter(ptr %entry, i64 %count, ptr %addresses, i64 %releases)
  %done = icmp eq i32 %status, 0
  br i1 %done, label %yes, label %failed
yes:
  ret ptr %result
failed:
  call void @Py_DecRef(ptr %result)
  ret ptr null
no:
  ret ptr null
}

; kernel(*operands, out=None): %self is (table, slow, "out", …).
define ptr @gemmir_call(ptr %self, ptr %args, i64 %given, ptr %names) {
  %table = call ptr @words(ptr %self, i64 0)
  %inputs.p = getelementptr %Table, ptr %table, i32 0, i32 1
  %inputs = load i64, ptr %inputs.p
  %full = icmp eq i64 %given, %inputs
  br i1 %full, label %named, label %slow
named:
  %positional = icmp eq ptr %names, null
  br i1 %positional, label %try, label %one
one:
  %count = call i64 @PyTuple_Size(ptr %names)
  %single = icmp eq i64 %count, 1
  br i1 %single, label %which, label %slow
which:
  %name = call ptr @PyTuple_GetItem(ptr %names, i64 0)
  %out.name = call ptr @PyTuple_GetItem(ptr %self, i64 2)
  %is.out = icmp eq ptr %name, %out.name
  br i1 %is.out, label %output, label %slow
output:
  %value.p = getelementptr ptr, ptr %args, i64 %given
  %value = load ptr, ptr %value.p
  %none = icmp eq ptr %value, @_Py_NoneStruct
  %value.or.null = select i1 %none, ptr null, ptr %value
  br label %try
try:
  %out = phi ptr [ null, %named ], [ %value.or.null, %output ]
  %result = call ptr @attempt(ptr %table, ptr %args, ptr %out)
  %missed = icmp eq ptr %result, null
  br i1 %missed, label %slow, label %done
done:
  ret ptr %result
slow:
  %function = call ptr @PyTuple_GetItem(ptr %self, i64 1)
  %answer = call ptr @PyObject_Vectorcall(ptr %function, ptr %args, i64 %given, ptr %names)
  ret ptr %answer
}

; kernel.bind(…)(): %self is (words, slow, result, …); the words are entry, count, whether to
; release the lock, and the addresses.
define ptr @gemmir_bound(ptr %self, ptr %nothing) {
  %words = call ptr @words(ptr %self, i64 0)
  %entry = load ptr, ptr %words
  %count.p = getelementptr i64, ptr %words, i64 1
  %count = load i64, ptr %count.p
  %releases.p = getelementptr i64, ptr %words, i64 2
  %releases = load i64, ptr %releases.p
  %addresses = getelementptr i64, ptr %words, i64 3
  %status = call i32 @enter(ptr %entry, i64 %count, ptr %addresses, i64 %releases)
  %done = icmp eq i32 %status, 0
  br i1 %done, label %yes, label %slow
yes:
  %result = call ptr @PyTuple_GetItem(ptr %self, i64 2)
  call void @Py_IncRef(ptr %result)
  ret ptr %result
slow:
  %function = call ptr @PyTuple_GetItem(ptr %self, i64 1)
  %answer = call ptr @PyObject_Vectorcall(ptr %function, ptr null, i64 0, ptr null)
  ret ptr %answer
}

; matmul(a, b, out, threads), all four given: %self is (plans, slow). A plan is (table, …) and lies
; in the list of plans where the shapes and strides of a and b say; None where there is none yet.
define ptr @gemmir_matmul(ptr %self, ptr %args, i64 %given) {
  %all = icmp eq i64 %given, 4
  br i1 %all, label %look, label %slow
look:
  %a = load ptr, ptr %args
  %b.p = getelementptr ptr, ptr %args, i64 1
  %b = load ptr, ptr %b.p
  %a.hash = call i64 @hash(ptr %a)
  %b.hash = call i64 @hash(ptr %b)
  %b.far = mul i64 %b.hash, -7046029254386353131
  %both = add i64 %a.hash, %b.far
  %mixed = mul i64 %both, -7046029254386353131
  %place = lshr i64 %mixed, 56
  %plans = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %plan = call ptr @PyList_GetItem(ptr %plans, i64 %place)
  %no.plan = icmp eq ptr %plan, @_Py_NoneStruct
  br i1 %no.plan, label %slow, label %planned
planned:
  %table = call ptr @words(ptr %plan, i64 0)
  %threads.p = getelementptr ptr, ptr %args, i64 3
  %threads = load i64, ptr %threads.p
  %want.p = getelementptr %Table, ptr %table, i32 0, i32 7
  %want = load i64, ptr %want.p
  %same = icmp eq i64 %threads, %want
  br i1 %same, label %try, label %slow
try:
  %out.p = getelementptr ptr, ptr %args, i64 2
  %value = load ptr, ptr %out.p
  %none = icmp eq ptr %value, @_Py_NoneStruct
  %out = select i1 %none, ptr null, ptr %value
  call void @Py_IncRef(ptr %plan)
  %result = call ptr @attempt(ptr %table, ptr %args, ptr %out)
  call void @Py_DecRef(ptr %plan)
  %missed = icmp eq ptr %result, null
  br i1 %missed, label %slow, label %done
done:
  ret ptr %result
slow:
  %function = call ptr @PyTuple_GetItem(ptr %self, i64 1)
  %answer = call ptr @PyObject_Vectorcall(ptr %function, ptr %args, i64 %given, ptr null)
  ret ptr %answer
}

; A number for the shape and the strides of an array, 0 for any other object.
define internal i64 @hash(ptr %array) {
  %type.p = getelementptr %Object, ptr %array, i32 0, i32 1
  %type = load ptr, ptr %type.p
  %plain = icmp eq ptr %type, @PyArray_Type
  br i1 %plain, label %is.array, label %no
is.array:
  %nd.p = getelementptr %Array, ptr %array, i32 0, i32 2
  %nd.32 = load i32, ptr %nd.p
  %nd = zext i32 %nd.32 to i64
  %extents.p = getelementptr %Array, ptr %array, i32 0, i32 3
  %extents = load ptr, ptr %extents.p
  %strides.p = getelementptr %Array, ptr %array, i32 0, i32 4
  %strides = load ptr, ptr %strides.p
  br label %next
next:
  %i = phi i64 [ 0, %is.array ], [ %i.next, %mix ]
  %sum = phi i64 [ %nd, %is.array ], [ %sum.next, %mix ]
  %more = icmp ult i64 %i, %nd
  br i1 %more, label %mix, label %done
mix:
  %e.p = getelementptr i64, ptr %extents, i64 %i
  %e = load i64, ptr %e.p
  %s.p = getelementptr i64, ptr %strides, i64 %i
  %s = load i64, ptr %s.p
  %sum.e = add i64 %sum, %e
  %mul.e = mul i64 %sum.e, -7046029254386353131
  %sum.s = add i64 %mul.e, %s
  %sum.next = mul i64 %sum.s, -7046029254386353131
  %i.next = add i64 %i, 1
  br label %next
done:
  ret i64 %sum
no:
  ret i64 0
}
