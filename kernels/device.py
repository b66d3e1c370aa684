"""Functions on tiles that generated kernels call.

Every helper takes tiles of any rank (or numbers) in fp32 or fp64 and is made of operations that Triton's interpreter
has too: no libdevice function, no inline assembly. A constant stands beside a tile in every operation and never in a
variable of its own: a variable would be fp32, also in an fp64 kernel. Where the sign of zero counts, ``x * -1.0``
stands for ``-x``, which Triton 3.6 makes ``0 - x``.

`tl.exp`, `log`, `sqrt`, `rsqrt`, `sin`, `cos`, `erf`, `floor` and `ceil` need no helper.

Polynomials interpolate their function at the Chebyshev nodes of the interval named beside them, in 60 digits; the
degree is the least whose error stays below a quarter of the dtype's rounding.
"""

import triton
import triton.language as tl


@triton.jit
def _polynomial(x, coefficients: tl.constexpr):
    """The polynomial with these coefficients, the highest power first, by Horner's rule."""
    value = x * coefficients[0] + coefficients[1]
    for index in tl.static_range(2, len(coefficients)):
        value = value * x + coefficients[index]
    return value


@triton.jit
def _is_negative(x):
    """Whether the sign bit is set: also that of -0.0."""
    if x.dtype == tl.float64:
        return x.to(tl.int64, bitcast=True) < 0
    else:
        return x.to(tl.int32, bitcast=True) < 0


@triton.jit
def tanh(x):
    """The hyperbolic tangent, to a few units in the last place also near 0; no overflow.

    Below 1/2 an odd polynomial, above it ``(1 - e) / (1 + e)`` with ``e = exp(-2 |x|)``, which cancels nothing there.
    """
    size = tl.abs(x)
    square = x * x
    if x.dtype == tl.float64:
        # (tanh(x) / x - 1) / x², on x² in [0, 1/4].
        curve = _polynomial(
            square,
            (
                -2.295330465333733e-05,
                8.819580305745065e-05,
                -0.00023635364294136244,
                0.0005894667419101905,
                -0.0014557608138655873,
                0.0035921217969498704,
                -0.008863235198659135,
                0.0218694885258676,
                -0.053968253968089755,
                0.1333333333333323,
                -0.3333333333333333,
            ),
        )
    else:
        curve = _polynomial(square, (-0.00694294175, 0.02147068303, -0.05393346915, 0.1333322578, -0.333333328))
    decay = tl.exp(size * -2.0)
    large = (1.0 - decay) / (1.0 + decay)
    return tl.where(size < 0.5, x + x * (square * curve), tl.where(x < 0, -large, large))


@triton.jit
def sigmoid(x):
    """``1 / (1 + exp(-x))`` without overflow: the exponential of a number above 0 is never taken."""
    decay = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, decay) / (1.0 + decay)


@triton.jit
def expm1(x):
    """``exp(x) - 1``, accurate near 0."""
    if x.dtype == tl.float64:
        # (expm1(x) / x - 1) / x, on [-1/2, 1/2].
        curve = _polynomial(
            x,
            (
                1.6116496514371548e-10,
                2.0962955815976076e-09,
                2.505194670972162e-08,
                2.7557076636642725e-07,
                2.755731943362024e-06,
                2.4801587616145414e-05,
                0.00019841269841146993,
                0.001388888888870455,
                0.00833333333333336,
                0.04166666666666706,
                0.16666666666666666,
                0.5,
            ),
        )
    else:
        curve = _polynomial(
            x, (0.0001994487444, 0.001398218605, 0.008333236134, 0.04166579123, 0.166666668, 0.5000000122)
        )
    return tl.where(tl.abs(x) < 0.5, x + x * (x * curve), tl.exp(x) - 1.0)


@triton.jit
def log1p(x):
    """``log(1 + x)``, accurate near 0: there ``2 artanh(x / (2 + x))``."""
    ratio = x / (x + 2.0)
    square = ratio * ratio
    if x.dtype == tl.float64:
        # (artanh(r) / r - 1) / r², on r² in [0, 1/25].
        curve = _polynomial(
            square,
            (
                0.06802007853562039,
                0.0660518024256631,
                0.07694417338900958,
                0.09090869227361513,
                0.11111111518903621,
                0.14285714283669596,
                0.200000000000039,
                0.3333333333333333,
            ),
        )
    else:
        curve = _polynomial(square, (0.1497780216, 0.1998950886, 0.3333335669))
    near = (x > -0.3) & (x < 0.5)
    return tl.where(near, ratio * 2.0 + ratio * 2.0 * (square * curve), tl.log(x + 1.0))


@triton.jit
def arctan(x):
    """The inverse tangent.

    The range is cut at tan(π/8) and tan(3π/8): between them ``arctan(x) = π/4 + arctan((x - 1) / (x + 1))``, above them
    ``π/2 - arctan(1 / x)``; one division serves all three.
    """
    size = tl.abs(x)
    middle = size > 0.41421356237309503
    high = size > 2.414213562373095
    above = tl.where(high, -1.0, tl.where(middle, size - 1.0, size))
    below = tl.where(high, size, tl.where(middle, size + 1.0, 1.0))
    ratio = above / below
    square = ratio * ratio
    if x.dtype == tl.float64:
        # (arctan(r) / r - 1) / r², on r² in [0, tan²(π/8)].
        curve = _polynomial(
            square,
            (
                -0.01914726376323698,
                0.0392074453205456,
                -0.05084610777582189,
                0.058579884306572266,
                -0.06664492955081326,
                0.07692181876696624,
                -0.09090904521500148,
                0.1111111101386139,
                -0.1428571428464918,
                0.19999999999995438,
                -0.3333333333333333,
            ),
        )
    else:
        curve = _polynomial(square, (-0.06447743139, 0.1074246748, -0.1426383853, 0.199995371, -0.3333333175))
    near = ratio + ratio * (square * curve)
    angle = tl.where(high, near + 1.5707963267948966, tl.where(middle, near + 0.7853981633974483, near))
    return tl.where(_is_negative(x), angle * -1.0, angle)


@triton.jit
def arctan2(y, x):
    """The angle of the point (x, y), in [-π, π]; zeros and infinities with their signs, as NumPy has it."""
    width, height = tl.abs(x), tl.abs(y)
    steep = height > width
    small = tl.where(steep, width, height)
    large = tl.where(steep, height, width)
    # The quotients 0 / 0 and infinity / infinity stand for the angles 0 and π/4.
    same = small == large
    slope = tl.where(same, tl.where(large == 0, 0.0, 1.0), small / tl.where(large == 0, 1.0, large))
    angle = arctan(slope)
    angle = tl.where(steep, 1.5707963267948966 - angle, angle)
    angle = tl.where(_is_negative(x), 3.141592653589793 - angle, angle)
    angle = tl.where(_is_negative(y), angle * -1.0, angle)
    # NaN where one of the two is.
    either = tl.where(x == x, y, x)
    return tl.where(either == either, angle, either)


@triton.jit
def power(x, y):
    """``x ** y`` with NumPy's special cases: a negative x takes whole exponents only, ``0 ** 0 = 1``, ``1 ** nan = 1``.

    ``exp(y log |x|)`` in fp64, since the product's rounding error is multiplied by its size: so fp32 results are right
    to the last places, and fp64 results to ``|y log x|`` roundings.
    """
    # Both are tiles where one is: a scalar condition does not combine with a tile.
    exponent = tl.where(x == x, y, y).to(tl.float64)
    base = tl.where(exponent == exponent, x, x).to(tl.float64)
    size = tl.abs(base)
    value = tl.where(size == 1, 1.0, tl.exp(exponent * tl.log(size)))
    half = exponent * 0.5
    whole, even = tl.floor(exponent), tl.floor(half)
    value = tl.where(_is_negative(base) & (whole == exponent) & (even != half), value * -1.0, value)
    # Zeros and infinities have a power for every exponent; other negative numbers for whole ones only.
    value = tl.where((base < 0) & (size < float("inf")) & (whole != exponent), float("nan"), value)
    value = tl.where((exponent == 0) | (base == 1), 1.0, tl.where(exponent == exponent, value, exponent))
    return value.to(x.dtype)


@triton.jit
def remainder(x, y):
    """``x - floor(x / y) y``: it has the sign of y, as `numpy.remainder`; NaN where y is 0 or x infinite.

    Two exact steps of long division by fused multiply-adds, so it is exact where ``|x / y|`` is below 2^40 in fp32 and
    2^100 in fp64; beyond that a unit in the last place of x is many times y, and the result says nothing.
    """
    size, divisor = tl.abs(x), tl.abs(y)
    rest = tl.fma(-tl.floor(size / divisor), divisor, size)
    rest = tl.fma(-tl.floor(rest / divisor), divisor, rest)
    # A rounded quotient may be one off.
    rest = tl.where(rest < 0, rest + divisor, rest)
    rest = tl.where(rest >= divisor, rest - divisor, rest)
    rest = tl.where(size < divisor, size, rest)
    rest = tl.where((rest != 0) & ((x < 0) != (y < 0)), divisor - rest, rest)
    return tl.where(_is_negative(y), rest * -1.0, rest)


@triton.jit
def floor_divide(x, y):
    """``x // y`` of integers, rounded down as in Python; 0 where y is 0, as NumPy has it."""
    # A tile operation divides all lanes: by 1 where there is no quotient, or where it may not fit (-2^63 / -1).
    divisor = tl.where((y == 0) | (y == -1), 1, y)
    quotient = x // divisor
    below = (x - quotient * divisor != 0) & ((x < 0) != (divisor < 0))
    quotient = tl.where(below, quotient - 1, quotient)
    return tl.where(y == 0, 0, tl.where(y == -1, -x, quotient))


@triton.jit
def integer_remainder(x, y):
    """``x % y`` of integers, with the sign of y as in Python; 0 where y is 0, as NumPy has it."""
    divisor = tl.where((y == 0) | (y == -1), 1, y)
    rest = x % divisor
    return tl.where((rest != 0) & ((rest < 0) != (divisor < 0)), rest + divisor, rest)


@triton.jit
def round_half_even(x):
    """The nearest whole number, of two the even one: `numpy.round`."""
    low = tl.floor(x)
    rest = x - low
    odd = tl.floor(low * 0.5) * 2.0 != low
    nearest = tl.where((rest > 0.5) | ((rest == 0.5) & odd), low + 1.0, low)
    # A product with 0 keeps the sign of a number that rounds to zero.
    return tl.where(nearest == 0, x * 0.0, nearest)


@triton.jit
def is_finite(x):
    """Whether x is neither infinite nor NaN."""
    return tl.abs(x) < float("inf")


@triton.jit
def sign(x):
    """-1, 0 or 1 in x's own dtype (float or integer); NaN of NaN."""
    return tl.where(x > 0, 1, tl.where(x < 0, -1, x))


@triton.jit
def maximum(x, y):
    """The larger of two, of floats or integers; NaN where either is NaN, as `numpy.maximum`."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(x, y):
    """The smaller of two, of floats or integers; NaN where either is NaN, as `numpy.minimum`."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _order(x):
    """Integers in the order of the floats: equal zeros are equal, NaN is above infinity.

    Floats of one sign are ordered as their bits are; those of negative ones run backwards. One reduction of these keys
    then does what two (of the values, and of whether one is NaN) would, and no backend's own rule for NaN matters.
    """
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        bits = tl.where(x == x, bits, 0x7FFFFFFFFFFFFFFF)
        bits = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
    else:
        bits = x.to(tl.int32, bitcast=True)
        bits = tl.where(x == x, bits, 0x7FFFFFFF)
        bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return tl.where(x == 0, 0, bits)


@triton.jit
def _value(order):
    """The float of a key that `_order` made."""
    if order.dtype == tl.int64:
        return tl.where(order < 0, order ^ 0x7FFFFFFFFFFFFFFF, order).to(tl.float64, bitcast=True)
    else:
        return tl.where(order < 0, order ^ 0x7FFFFFFF, order).to(tl.float32, bitcast=True)


@triton.jit
def reduce_max(x, axis: tl.constexpr):
    """The largest element along an axis, which the result lacks; NaN where there is one, as `numpy.max`."""
    if x.dtype.is_floating():
        return _value(tl.max(_order(x), axis))
    else:
        return tl.max(x, axis)


@triton.jit
def reduce_min(x, axis: tl.constexpr):
    """The smallest element along an axis, which the result lacks; NaN where there is one, as `numpy.min`."""
    if x.dtype.is_floating():
        return -_value(tl.max(_order(-x), axis))
    else:
        return tl.min(x, axis)


@triton.jit
def argmax(x, axis: tl.constexpr):
    """The i32 position of the largest element along an axis: the first of equal ones, or of NaNs, as `numpy.argmax`."""
    if x.dtype.is_floating():
        return tl.argmax(_order(x), axis)
    else:
        return tl.argmax(x, axis)


@triton.jit
def reduce_prod(x, axis: tl.constexpr):
    """The product along an axis, which the result lacks.

    The last of the cumulative products: the interpreter runs a reduction of our own one element at a time.
    """
    length: tl.constexpr = x.shape[axis]
    rank: tl.constexpr = len(x.shape)
    position = tl.reshape(tl.arange(0, length), [1] * axis + [length] + [1] * (rank - axis - 1))
    return tl.sum(tl.where(position == length - 1, tl.cumprod(x, axis), 0), axis)


@triton.jit
def cumulative_sum(x, axis: tl.constexpr, reverse: tl.constexpr = False):
    """Each element with all before it along an axis (after it, in reverse) added."""
    return tl.cumsum(x, axis, reverse=reverse)


@triton.jit
def cumulative_product(x, axis: tl.constexpr, reverse: tl.constexpr = False):
    """Each element with all before it along an axis (after it, in reverse) multiplied."""
    return tl.cumprod(x, axis, reverse=reverse)


@triton.jit
def mix(z):
    """SplitMix64's finaliser, of u64 numbers; see `compiler/primitives/random.py`."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def fold_seed(seed, counter):
    """The i64 seed that an i64 seed and a counter (any integer, or the index of a loop) make."""
    # The interpreter's loop indices are plain numbers, which have no `to`.
    steps = ((seed * 0 + counter).to(tl.uint64, bitcast=True) + 1) * 0x9E3779B97F4A7C15
    return mix(seed.to(tl.uint64, bitcast=True) + steps).to(tl.int64, bitcast=True)


@triton.jit
def uniform(seed, lane):
    """A draw in (0, 1) for each lane, as fp32; the fp64 draw is the same number.

    Arguments:
        seed: an i64 number, or a tile that broadcasts with `lane`.
        lane: the integer number of each element in the drawn array, row by row, from 0.
    """
    steps = (lane.to(tl.uint64) + 1) * 0x9E3779B97F4A7C15
    bits = mix(seed.to(tl.uint64, bitcast=True) + steps)
    # 23 bits and a half, exact in fp32: so every dtype and evaluator has the same draw; never 0 or 1.
    return (bits >> 41).to(tl.int32).to(tl.float32) * 1.1920928955078125e-07 + 5.960464477539063e-08


@triton.jit
def arrive(counter):
    """Count that a program has come to a barrier of the grid. What it wrote before, all can read once they have waited
    for its arrival; what it writes from here on, such as results that no other program reads, nobody waits for.

    Arguments:
        counter: a pointer to an i32 that was 0 when the kernel started and only counts up.
    """
    # The program's own threads meet first: one of them counts, and its release stands for all.
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def await_arrivals(counter, arrivals):
    """Wait until as many programs have come to a barrier of the grid; what each wrote before it came, all can read.

    Arguments:
        counter: as of `arrive`. All programs of the grid must run at once (a cooperative launch), or those that run
            wait for ever.
        arrivals: how many arrivals there are when all have come: the number of programs, times the number of barriers
            that a program has come to.
    """
    # The program's own threads meet last: the acquire of one of them stands for all.
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def grid_barrier(counter, arrivals):
    """Come to a barrier of the grid and wait for the other programs: `arrive`, then `await_arrivals`."""
    arrive(counter)
    await_arrivals(counter, arrivals)
