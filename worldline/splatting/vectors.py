"""Eight numbers at a time in numba: a type for LLVM's vectors, so that a kernel says what is vectorised.

LLVM's own vectoriser needs long loops. A Gaussian's row is a dozen pixels, and a loop that is vectorised by it spends most of
such a row in its scalar remainder. Here a kernel walks blocks of eight pixels and every operation on a block is one vector
instruction (or two, or four, on a processor with narrower vectors: LLVM cuts them).

    block = load(transmittance, index)            # eight neighbours of a one-dimensional array
    store(transmittance, index, block * (1.0 - alpha))

`+ - *` work between vectors and between a vector and a number; `<`, `<=`, `>` and `&` give masks for `select`.
"""

import operator
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

LANES = 8
intrinsic: Any = extending.intrinsic  # kernels call these without the typing context
_FLAGS = ("nsz", "arcp", "contract", "afn", "reassoc")


class VectorType(types.Type):  # type: ignore[misc]
    """Eight numbers of one kind."""

    def __init__(self, number: types.Float) -> None:
        self.number = number
        super().__init__(name=f"Vector({number})")


class MaskType(types.Type):  # type: ignore[misc]
    """Eight truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


class VariablesType(types.Type):  # type: ignore[misc]
    """Vectors that are read and written by an index; in registers where every index is known when compiling."""

    def __init__(self, vector: VectorType) -> None:
        self.vector = vector
        super().__init__(name=f"Variables({vector})")


MASK = MaskType()


def _vector(number: types.Float) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if number == types.float32 else ir.DoubleType(), LANES)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, _vector(fe_type.number))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), LANES))


@register_model(VariablesType)
class _VariablesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VariablesType) -> None:
        super().__init__(dmm, fe_type, _vector(fe_type.vector.number).as_pointer())


def _splat(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


# -- memory ------------------------------------------------------------------------------------------------------------


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _vector(array_type.dtype).as_pointer())


@intrinsic
def load(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Return the eight elements of a contiguous one-dimensional array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments)
        return builder.load(address, align=signature.args[0].dtype.bitwidth // 8)

    return VectorType(array.dtype)(array, types.intp), generate


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Ask for a row of a two-dimensional array to be brought near."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        block = context.make_array(array)(context, builder, arguments[0])
        step = cgutils.unpack_tuple(builder, block.strides, 2)[0]
        address = builder.gep(builder.bitcast(block.data, pointer), [builder.mul(arguments[1], step)])
        kind = ir.FunctionType(ir.VoidType(), [pointer, whole, whole, whole])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, whole(0), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, vector):  # type: ignore[no-untyped-def]
    """Write eight elements of a contiguous one-dimensional array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], address, align=signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def store_floor(typing_context, array, index, vector):  # type: ignore[no-untyped-def]
    """Write the whole parts of eight positive lanes to an array of int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = builder.fptosi(arguments[2], ir.VectorType(ir.IntType(32), LANES))
        data = context.make_array(array)(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), whole.type.as_pointer())
        builder.store(whole, address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def store_run(typing_context, array, index, first):  # type: ignore[no-untyped-def]
    """Write `first`, `first` + 1, ... `first` + 15 to an array of uint8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        run = ir.VectorType(ir.IntType(8), 16)
        start = _splat(builder, builder.trunc(arguments[2], ir.IntType(8)), run)
        data = context.make_array(array)(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), run.as_pointer())
        builder.store(builder.add(start, ir.Constant(run, list(range(16)))), address, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@intrinsic
def variables(typing_context, like, names):  # type: ignore[no-untyped-def]
    """Return as many variables, each to hold a vector of the kind of the number `like`, as the tuple `names` is long."""
    size = len(names)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = _vector(like)
        block = cgutils.alloca_once(builder, ir.ArrayType(vector, size))
        return builder.bitcast(block, vector.as_pointer())

    return VariablesType(VectorType(like))(like, names), generate


@intrinsic
def get(typing_context, variables, index):  # type: ignore[no-untyped-def]
    """Return one of `variables`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.gep(arguments[0], [arguments[1]]))

    return variables.vector(variables, types.intp), generate


@intrinsic
def put(typing_context, variables, index, vector):  # type: ignore[no-untyped-def]
    """Write one of `variables`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]))
        return context.get_dummy_value()

    return types.void(variables, types.intp, vector), generate


# -- making vectors ----------------------------------------------------------------------------------------------------


@intrinsic
def splat(typing_context, number):  # type: ignore[no-untyped-def]
    """Return a vector of eight times the same number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0], _vector(signature.args[0]))

    return VectorType(number)(number), generate


def pattern(values: Sequence[float]) -> Any:
    """Return a function of kernels that takes a number and returns eight constants of its kind."""

    @intrinsic
    def constants(typing_context, number):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return ir.Constant(_vector(number), [float(value) for value in values])

        return VectorType(number)(number), generate

    return constants


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _elementwise(instruction: str, predicate: str = "") -> Any:
    @intrinsic
    def operation(typing_context, left, right):  # type: ignore[no-untyped-def]
        vector = left if isinstance(left, VectorType) else right
        result = MASK if predicate else vector
        signature = result(*(vector if isinstance(side, VectorType) else vector.number for side in (left, right)))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = _vector(vector.number)
            sides = [
                value if isinstance(side, VectorType) else _splat(builder, value, kind)
                for side, value in zip(signature.args, arguments, strict=True)
            ]
            if predicate:
                return builder.fcmp_ordered(predicate, *sides)
            return getattr(builder, instruction)(*sides, flags=_FLAGS)

        return signature, generate

    return operation


def _define(operation: Any, implementation: Any) -> None:
    @overload(operation, inline="never")
    def choose(left, right):  # type: ignore[no-untyped-def]
        kinds = [isinstance(side, VectorType) for side in (left, right)]
        if any(kinds) and all(kind or isinstance(side, types.Number) for kind, side in zip(kinds, (left, right), strict=True)):
            return lambda left, right: implementation(left, right)
        return None


_define(operator.add, _elementwise("fadd"))
_define(operator.sub, _elementwise("fsub"))
_define(operator.mul, _elementwise("fmul"))
_define(operator.truediv, _elementwise("fdiv"))
_define(operator.lt, _elementwise("fcmp", "<"))
_define(operator.le, _elementwise("fcmp", "<="))
_define(operator.gt, _elementwise("fcmp", ">"))
_define(operator.ge, _elementwise("fcmp", ">="))


@intrinsic
def _both(typing_context, left, right):  # type: ignore[no-untyped-def]
    return MASK(MASK, MASK), lambda context, builder, signature, arguments: builder.and_(*arguments)


@overload(operator.and_)
def _and(left, right):  # type: ignore[no-untyped-def]
    if isinstance(left, MaskType) and isinstance(right, MaskType):
        return lambda left, right: _both(left, right)
    return None


@intrinsic
def select(typing_context, mask, yes, no):  # type: ignore[no-untyped-def]
    """Return `yes` where the mask is set and `no` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return yes(mask, yes, no), generate


@intrinsic
def count(typing_context, mask):  # type: ignore[no-untyped-def]
    """Return how many lanes of a mask are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(MASK), generate


def _call(builder: Any, name: str, result: Any, arguments: Any, flags: tuple[str, ...] = _FLAGS) -> Any:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments, fastmath=flags)


def _suffix(number: types.Float) -> str:
    return f"v{LANES}f{number.bitwidth}"


@intrinsic
def total(typing_context, vector):  # type: ignore[no-untyped-def]
    """Return the sum of the lanes, in one order on every machine: halves onto halves."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, width = arguments[0], LANES
        while width > 1:
            width //= 2
            low, high = (
                builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(ir.IntType(32), width), list(part)))
                for part in (range(width), range(width, 2 * width))
            )
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return vector.number(vector), generate


@intrinsic
def totals(typing_context, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Return the sums of the lanes of eight vectors as one vector, in a third of the instructions of eight `total`s."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, width = list(arguments), LANES
        while width > 1:
            # A vector holds sums over `width` lanes each: lay two vectors' lower halves side by side, and their upper ones.
            width //= 2
            low = [lane for lane in range(2 * LANES) if lane % (2 * width) < width]
            halves = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), part) for part in (low, [lane + width for lane in low])]
            vectors = [
                builder.fadd(*(builder.shuffle_vector(left, right, half) for half in halves))
                for left, right in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return vectors[0]

    return a(a, b, c, d, e, f, g, h), generate


def _extreme(predicate: str) -> Any:
    @intrinsic
    def operation(typing_context, vector, other):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            left, right = arguments
            right = right if isinstance(other, VectorType) else _splat(builder, right, left.type)
            return builder.select(builder.fcmp_ordered(predicate, left, right), left, right)

        return vector(vector, vector if isinstance(other, VectorType) else vector.number), generate

    return operation


smaller = _extreme("<")  # the smaller of each lane of a vector and the lane of another, or a number
greater = _extreme(">")  # the greater of them


@intrinsic
def magnitude(typing_context, vector):  # type: ignore[no-untyped-def]
    """Return the absolute value of each lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.fabs.{_suffix(vector.number)}", arguments[0].type, arguments)

    return vector(vector), generate


@intrinsic
def root(typing_context, vector):  # type: ignore[no-untyped-def]
    """Return the square root of each lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.sqrt.{_suffix(vector.number)}", arguments[0].type, arguments, ())

    return vector(vector), generate


@intrinsic
def _nearest(typing_context, vector):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.rint.{_suffix(vector.number)}", arguments[0].type, arguments)

    return vector(vector), generate


@intrinsic
def _scale(typing_context, vector, exponents):  # type: ignore[no-untyped-def]
    """Return float32 lanes times 2^n of whole numbers n, by adding to the exponent's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        shift = builder.shl(builder.fptosi(arguments[1], integers), ir.Constant(integers, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], integers), shift), arguments[0].type)

    return vector(vector, vector), generate


@intrinsic
def _library_exp2(typing_context, vector):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.exp2.{_suffix(vector.number)}", arguments[0].type, arguments)

    return vector(vector), generate


@njit(inline="always")  # type: ignore[untyped-decorator]
def _polynomial_exp2(x):  # type: ignore[no-untyped-def]
    """Return 2^x as 2^n times a polynomial of the rest, at most 1/2; fitted for the smallest largest relative error, 2e-8."""
    whole = _nearest(x)
    rest = x - whole
    value = rest * 0.00015353309572674334 + 0.0013398939045146108
    value = value * rest + 0.009618437848985195
    value = value * rest + 0.055503323674201965
    value = value * rest + 0.24022647738456726
    value = value * rest + 0.6931471824645996
    return _scale(value * rest + 1.0, whole)


def exp2(vector: Any) -> Any:
    """Return 2^x of each lane: the library's for float64, within 1 unit in the last place for float32 x in [-126, 127].

    float32 lanes outside that range give any number.
    """
    raise NotImplementedError("only inside numba functions")


@overload(exp2)
def _exp2(vector):  # type: ignore[no-untyped-def]
    if vector.number == types.float32:
        return lambda vector: _polynomial_exp2(vector)
    return lambda vector: _library_exp2(vector)
