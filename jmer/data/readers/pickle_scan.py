"""Whether a pickle can be handed to the fast unpickler: a scan of its operations, most of it in regular expressions.

The unpickler of C allocates whatever index of its memo a pickle names, and hashes keys without a limit: tuples in
tuples overflow its stack, tuples that share their elements take exponential time, and long integers collide. Feature
files need none of it, so the scan recognises the operations that they have, and any other pickle goes to a slower
unpickler that checks each key. In what the scan passes,

- indices of the memo are below the size of the file, rounded up, and integers have at most 64 bits;
- a tuple is short and of numbers and strings, or it is the arguments of a call or the state of an array, which the
  stand-ins for names check; or nothing is hashed after it, as for the tuple that is the whole content.
"""

import functools
import mmap
import re
from typing import NamedTuple

SHORT = 48
"""The longest strings that the regular expressions match; longer ones take a step each."""
KEY_ITEMS = 16
"""The most items of a tuple that is a key."""


class _Patterns(NamedTuple):
    """Regular expressions for files of one order of size.

    Attributes:
      run: any number of operations, each of which is harmless by itself.
      run_unhashed: those of them that hash nothing.
      tuple_made: a tuple of anything.
      array_begun: the call that makes an array, and its state up to the bytes.
      array_done: the rest of the state after the bytes.
    """

    run: re.Pattern[bytes]
    run_unhashed: re.Pattern[bytes]
    tuple_made: re.Pattern[bytes]
    array_begun: re.Pattern[bytes]
    array_done: re.Pattern[bytes]


# Operation of a string -> number of bytes of its length.
_LENGTHS = {ord("U"): 1, ord("C"): 1, 0x8C: 1, ord("T"): 4, ord("X"): 4, ord("B"): 4, 0x8D: 8, 0x8E: 8, 0x96: 8}
_STOP, _HASHES = ord("."), frozenset(b"sud\x90\x91")


def is_plain(pickled: bytes | mmap.mmap) -> bool:
    """Whether the unpickler of C takes time and memory in proportion to the size of a pickle.

    Args:
      pickled: the content of the file, or a map of it.
    """
    patterns = _patterns(max(len(pickled), 1 << 16).bit_length() - 16)
    position, size, run = 0, len(pickled), patterns.run
    while True:
        position = _end(run, pickled, position)
        if position >= size:
            return False
        operation = pickled[position]
        if operation == _STOP:
            return True
        in_array = patterns.array_begun.match(pickled, position)
        if in_array:
            position = in_array.end()
        if position < size and pickled[position] in _LENGTHS:
            after = _after_string(pickled, position)
            position = _end(patterns.array_done, pickled, after) if in_array else after
        elif not in_array:
            made = patterns.tuple_made.match(pickled, position)
            if not made:
                return False
            position, run = made.end(), patterns.run_unhashed


def _end(pattern: re.Pattern[bytes], pickled: bytes | mmap.mmap, position: int) -> int:
    found = pattern.match(pickled, position)
    return found.end() if found else position


def _after_string(pickled: bytes | mmap.mmap, position: int) -> int:
    start = position + 1 + _LENGTHS[pickled[position]]
    return start + int.from_bytes(pickled[position + 1 : start], "little")


@functools.lru_cache
def _patterns(bits: int) -> _Patterns:
    """Returns the expressions for files of less than 2**(16 + bits) bytes."""
    high = (1 << bits) - 1
    index = (rb"\x%02x" % min(high, 255), rb"\x%02x" % min(high >> 8, 255), len(str(1 << (15 + bits))))
    put = rb"(?:q.|r..[\x00-%b][\x00-%b]|p\d{1,%d}\n|\x94)?" % index
    get = rb"(?:h.|j.{4}|g\d{1,10}\n)"
    lengths = range(SHORT + 1)
    short = b"|".join(rb"\x%02x.{%d}" % (n, n) for n in lengths)
    wide = b"|".join(rb"\x%02x\0\0\0.{%d}" % (n, n) for n in lengths)
    string = rb"(?:[U\x8cC](?:%b)|[XTB](?:%b)|[SV][^\n]{,%d}\n)%b" % (short, wide, SHORT, put)
    integer = rb"(?:K.|M..|J.{4}|I-?\d{1,9}\n)"
    long = rb"(?:\x8a(?:%b|\x09.{8}\0)|[IL]-?\d{1,19}L?\n)" % b"|".join(rb"\x%02x.{%d}" % (n, n) for n in range(9))
    atom = rb"(?:(?:%b|[N\x88\x89])%b|%b)" % (integer, put, string)
    flat = rb"(?:%b(?:\x85|%b(?:\x86|%b\x87))|\(%b{,%d}+t)%b" % (atom, atom, atom, atom, KEY_ITEMS, put)
    name = rb"(?:c[^\n]*\n[^\n]*\n%b|(?:%b|%b){2}\x93%b|%b)" % (put, string, get, put, get)
    length = rb"(?:%b%b)" % (integer, put)
    shape = rb"(?:\)|%b(?:\x85|%b(?:\x86|%b\x87))|\(%b{,32}+t)%b" % (length, length, length, length, put)
    # The byte order may be in the memo. What has no checked state refuses such a tuple as its state.
    dtype_made = rb"%b%b%bR%b\((?:%b|%b){,%d}+t%bb%b" % (name, flat, put, put, atom, get, KEY_ITEMS, put, put)
    dtype = rb"(?:%b|%b)" % (dtype_made, get)
    # With three arguments: a call with two makes a scalar of NumPy, which takes any state.
    arguments = rb"(?:\x87|\(%b%b%bt)" % (name, flat, atom)
    begun = rb"%b%bR%b\((?:K\x01|I1\n)%b" % (arguments, put, put, put)
    call = rb"(?:[\x85\x86t]%b[RQ]|(?!%b)\x87%b[RQ])%b" % (put, begun, put, put)
    line = rb"c[^\n]*\n[^\n]*\n|[SV][^\n]*\n"
    # First, since lists of numbers have many, and none of the other operations begins so.
    floats = rb"(?:G.{8})++|(?:F[^\n]{1,64}\na?)++"
    unhashed = rb"(?!%b)\(|[]})aelRbN012\x88\x89\x8f\x93]|q.|r..[\x00-%b][\x00-%b]|p\d{1,%d}\n|\x94|\x80.|\x95.{8}" % (
        begun,
        *index,
    )
    operations = b"|".join((floats, dtype_made, flat, string, integer, call, get, long, unhashed, line))

    def compiled(pattern: bytes) -> re.Pattern[bytes]:
        return re.compile(pattern, re.DOTALL)

    return _Patterns(
        compiled(rb"(?:%b|[sud\x90\x91])*+" % operations),
        compiled(rb"(?:%b)*+" % operations),
        compiled(rb"[\x85-\x87t]"),
        compiled(rb"%b%b%b(?:[\x88\x89]|I0[01]\n)(?:%b\(?)?(?:[SV][^\n]*\n)?" % (begun, shape, dtype, name)),
        compiled(rb"%b(?:(?:%b|%b)[\x86t]%bR%b)?t%bb" % (put, string, get, put, put, put)),
    )
