#!/bin/bash
# Makes the seeds of all fuzz targets, small ones, from what the compilers here write.
#
# usage: make.sh FORMATS-PROGRAM FOLDER
set -euo pipefail
formats=$(realpath "$1")
mkdir -p "$2"
cd "$2"
mkdir -p probe_sites unwind_table elf_symbols dwarf_lines go_pclntab jit_map demangle maps

"$formats" .

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/a.cc" <<'CODE'
int counter = 1;
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
# Without the section table, as sstrip(1) leaves them: PT_DYNAMIC leads to the symbols.
for style in sysv gnu; do
  compile dynamic -O1 -Wl,--hash-style=$style
  for zeros in 40:8 60:4; do  # e_shoff; e_shnum and e_shstrndx
    dd if=/dev/zero of="$work/dynamic" bs=1 seek=${zeros%:*} count=${zeros#*:} conv=notrunc status=none
  done
  cp "$work/dynamic" elf_symbols/dynamic-$style
done
# A libc in small: a wrapper, an old version, a spin lock, a loop to the entry.
cat >"$work/libc.s" <<'CODE'
.globl pthread_mutex_lock, mtx_lock, pthread_mutex_unlock, pthread_spin_lock, sem_trywait, pthread_create
.globl gnu_get_libc_version, cond_new, cond_old
.symver cond_new, pthread_cond_signal@@GLIBC_2.3.2
.symver cond_old, pthread_cond_signal@GLIBC_2.2.5
.irp f, pthread_mutex_lock, mtx_lock, pthread_mutex_unlock, pthread_spin_lock, sem_trywait, pthread_create, gnu_get_libc_version, cond_new, cond_old
.type \f, @function
.endr
pthread_mutex_lock: endbr64; mov 16(%rdi), %eax; and $3, %eax; jne 1f; ret; 1: push %rbx; pop %rbx; ret
mtx_lock: sub $8, %rsp; call pthread_mutex_lock@PLT; add $8, %rsp; ret
pthread_mutex_unlock: mov $1, %esi; jmp 1b
pthread_spin_lock: lock decl (%rdi); jne 2f; ret; 2: pause; jmp pthread_spin_lock
sem_trywait: mov (%rdi), %eax; test %eax, %eax; jne sem_trywait; ret
cond_new: push %r15; pop %r15; ret
cond_old: mov (%rdi), %rdi; jmp cond_new
pthread_create: gnu_get_libc_version: ret
CODE
echo 'GLIBC_2.2.5 { global: *; }; GLIBC_2.3.2 { } GLIBC_2.2.5;' >"$work/versions"
gcc -shared -nostdlib -Wl,-z,noseparate-code -Wl,-Bsymbolic -Wl,--version-script="$work/versions" \
  -o "$work/libc" "$work/libc.s"
strip -o probe_sites/stripped "$work/libc"
cp "$work/libc" probe_sites/whole
for name in lines4 lines5 packed; do cp "$work/$name" dwarf_lines/; done

printf '1000 100 old\n1040 20 new\n0x2000 0x10 LazyCompile:*handle /srv/app.js:12\nzz 1 junk\n' >jit_map/a
cp /proc/self/maps maps/
n=0
for name in _ZN3foo3barIiEEvT_ _ZNSt6vectorIiSaIiEE9push_backEOi _ZZ4mainENKUlvE_clEv _ZTV3foo \
            _RNvCs15kBYyAo9fc_7mycrate7example _ZN4core3fmt9Formatter9write_str17h0123456789abcdefE \
            _ZNK1AcvT_IS0_EEv _ZStplIcSt11char_traitsIcESaIcEENSt7__cxx1112basic_stringIT_T0_T1_EES8_; do
  printf %s "$name" >demangle/$((n += 1))
done

# Go's table as 1.18 and 1.20 write it: src/debug/gosym/pclntab.go, src/runtime/symtab.go. Two
# functions, into one of which a third is inlined.
python3 - <<'CODE'
import struct

def values(*steps):  # (value, bytes of code)...
    out, last = b"", -1
    for value, length in steps:
        change, last = value - last, value
        for number in (change << 1 if change >= 0 else ~(change << 1), length):
            while number > 127:
                out += bytes([number & 127 | 128])
                number >>= 7
            out += bytes([number])
    return out + b"\0"

def table(is_118):
    names = b"\0main.main\0main.worker\0sync.(*Mutex).Lock\0"
    name = lambda text: names.index(text + b"\0")
    files = b"/src/main.go\0/src/mutex.go\0"
    units = struct.pack("<2I", 0, files.index(b"/src/mutex.go"))
    numbers = [b"\0", values((0, 4), (24, 60)), values((0, 40), (1, 16), (0, 8)),
               values((7, 20), (9, 20), (81, 16), (10, 8)), values((-1, 40), (0, 16), (-1, 8))]
    at = [sum(map(len, numbers[:i])) for i in range(len(numbers))]
    call = name(b"sync.(*Mutex).Lock")
    tree = (struct.pack("<hBBiiii", -1, 0, 0, 1, 80, call, 36) if is_118 else
            struct.pack("<B3xiii", 0, call, 36, 70))
    places, content = [], b""
    for part in (names, units, files, b"".join(numbers), tree):
        places.append(72 + len(content))
        content += part + bytes(-len(part) % 8)
    tree_at, functab_at = places.pop(), 72 + len(content)
    start_line = () if is_118 else (6,)
    record = lambda entry, text, flag, n_data: struct.pack(
        "<IiiIIIIII" + "i" * len(start_line) + "BBBB", entry, name(text), 0, 0, at[1], at[2], at[3],
        3, 0, *start_line, 0, flag, 0, n_data) + struct.pack("<3I", 0, 0, at[4])
    worker = record(64, b"main.worker", 0, 4) + struct.pack("<4I", 0, 0, 0, tree_at)
    main = record(0, b"main.main", 4, 0)
    functab = struct.pack("<5I4x", 0, 24, 64, 24 + len(main), 128)
    header = struct.pack("<IHBB8Q", 0xfffffff0 if is_118 else 0xfffffff1, 0, 1, 8, 2, 2, 0x401000,
                         *places, functab_at)
    return header + content + functab + main + worker

for is_118 in (True, False):
    for how in range(4):
        open(f"go_pclntab/{118 if is_118 else 120}-{how}", "wb").write(table(is_118) + bytes([how]))
CODE
