/* The few kernel types that the programs read, relocated at load time (CO-RE)
 * to the running kernel's layout. Written by hand, not dumped from one
 * kernel's BTF: the build needs no /sys/kernel/btf, and the list shows what we
 * depend on. */
#pragma once

#include <linux/types.h>

#define LS_KERNEL_TYPE __attribute__((preserve_access_index))

typedef int pid_t;

struct rb_node {
	struct rb_node *rb_right;
	struct rb_node *rb_left;
} LS_KERNEL_TYPE;

struct rb_root {
	struct rb_node *rb_node;
} LS_KERNEL_TYPE;

struct super_block {
	__u32 s_dev;
} LS_KERNEL_TYPE;

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
} LS_KERNEL_TYPE;

struct file {
	struct inode *f_inode;
} LS_KERNEL_TYPE;

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
	struct rb_node vm_rb; /* until 6.0 */
} LS_KERNEL_TYPE;

/* Mappings since 6.1 (524e00b36e8c): include/linux/maple_tree.h. */
struct maple_tree {
	void *ma_root;
} LS_KERNEL_TYPE;

struct maple_range_64 {
	void *parent;
	unsigned long pivot[15];
	void *slot[16];
} LS_KERNEL_TYPE;

struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
} LS_KERNEL_TYPE;

struct mm_struct {
	struct rb_root mm_rb; /* until 6.0 */
	struct maple_tree mm_mt;
} LS_KERNEL_TYPE;

struct upid {
	int nr;
} LS_KERNEL_TYPE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} LS_KERNEL_TYPE;

struct sched_entity {
	unsigned long long exec_start;
} LS_KERNEL_TYPE;

struct sched_info {
	unsigned long long last_arrival; /* CONFIG_SCHED_INFO */
} LS_KERNEL_TYPE;

struct thread_info {
	unsigned int cpu; /* since 5.16 (bcf9033e5449) */
} LS_KERNEL_TYPE;

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state; /* since 5.14 (2f064a59a11f) */
	unsigned int flags;
	void *stack;
	int on_cpu;
	unsigned int cpu; /* until 5.15 */
	int exit_state;
	pid_t pid;
	pid_t tgid;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	unsigned long long start_boottime;
	unsigned long long self_exec_id; /* 64 bits since 5.7 (d1e7fd6462ca) */
	int *clear_child_tid;
	struct pid *thread_pid;
	struct sched_entity se;
	struct sched_info sched_info;
	unsigned long nvcsw;
	unsigned long nivcsw;
	char comm[16];
} LS_KERNEL_TYPE;

/* Before 5.14 (2f064a59a11f, "sched: Change task_struct::state"). */
struct task_struct___before_5_14 {
	volatile long state;
} LS_KERNEL_TYPE;

/* The ABI of x86-64, the same on every kernel: no relocation. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax;
	unsigned long ip, cs, flags, sp, ss;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} LS_KERNEL_TYPE;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} LS_KERNEL_TYPE;

/* Context of the tracepoints syscalls:sys_enter_* and sys_exit_*. */
struct ls_sys_enter {
	__u64 common;
	__s32 nr;
	__u32 unset;
	__u64 args[6];
};

struct ls_sys_exit {
	__u64 common;
	__s32 nr;
	__u32 unset;
	__s64 ret;
};
