#!/bin/bash
# Makes the seeds of all fuzz targets, small ones, from what the compilers here write.
#
# usage: make.sh FORMATS-PROGRAM FOLDER
set -euo pipefail
formats=$(realpath "$1")
mkdir -p "$2"
cd "$2"
mkdir -p unwind_table elf_symbols dwarf_lines go_pclntab jit_map demangle maps

"$formats" .

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/a.cc" <<'CODE'
struct Lock { __attribute__((always_inline)) void take() { state = state + 1; } int volatile state; };
__attribute__((noinline)) int work(Lock& lock, int n) { lock.take(); return n * 3; }
template <class T> __attribute__((noinline)) T twice(Lock& lock, T n) { return work(lock, n) * 2; }
extern "C" int entry(int n) { Lock lock{0}; char room[n]; lock.take(); return twice(lock, n) + room[0]; }
CODE
compile() {  # NAME FLAGS...
  local name=$1
  shift
  g++ -x c++ -shared -fPIC -nostdlib -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096 "$@" \
    -o "$work/$name" "$work/a.cc"
}
compile plain -O1
compile lines4 -O2 -gdwarf-4
compile lines5 -O2 -gdwarf-5
compile packed -O2 -gdwarf-5 -gz=zlib
compile debug_frame -O1 -g -fno-asynchronous-unwind-tables -fno-exceptions
(cd "$work"
 strip -o stripped plain
 objcopy --add-gnu-debuglink=lines5 stripped linked
 strip --strip-debug -o symbols lines5
 if command -v xz >/dev/null; then
   xz -k symbols && objcopy --add-section .gnu_debugdata=symbols.xz stripped mini
 fi)
for name in plain stripped debug_frame; do cp "$work/$name" unwind_table/; done
for name in plain stripped linked symbols mini; do cp "$work/$name" elf_symbols/ 2>/dev/null || true; done
for name in lines4 lines5 packed; do cp "$work/$name" dwarf_lines/; done

printf '1000 100 old\n1040 20 new\n0x2000 0x10 LazyCompile:*handle /srv/app.js:12\nzz 1 junk\n' >jit_map/a
cp /proc/self/maps maps/
n=0
for name in _ZN3foo3barIiEEvT_ _ZNSt6vectorIiSaIiEE9push_backEOi _ZZ4mainENKUlvE_clEv _ZTV3foo \
            _RNvCs15kBYyAo9fc_7mycrate7example _ZN4core3fmt9Formatter9write_str17h0123456789abcdefE \
            _ZNK1AcvT_IS0_EEv _ZStplIcSt11char_traitsIcESaIcEENSt7__cxx1112basic_stringIT_T0_T1_EES8_; do
  printf %s "$name" >demangle/$((n += 1))
done

# Go 1.20's header, two functions and their names: src/debug/gosym/pclntab.go.
python3 - <<'CODE'
import struct
names = b"main.main\0main.worker\0"
functab_at = 80 + len(names)
funcs_at = 3 * 8
header = struct.pack("<IHBB8Q", 0xfffffff1, 0, 1, 8, 2, 0, 0x401000, 80, 0, 0, 0, functab_at)
functab = struct.pack("<6I", 0, funcs_at, 64, funcs_at + 40, 128, 0)
functions = struct.pack("<Ii32x", 0, 0) + struct.pack("<Ii32x", 64, 10)
open("go_pclntab/a", "wb").write(header + names + functab + functions)
CODE
