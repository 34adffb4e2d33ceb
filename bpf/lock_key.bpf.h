/* Which futex an address is: the kernel's own identity of it, so that all
 * processes that share a futex meet at one lock. As get_futex_key() in
 * kernel/futex/core.c: private futexes by address space and address, shared
 * ones by inode and offset. A shared futex in private memory (glibc's
 * pthread_join waits so) is private all the same. */
#pragma once

#include "tasks.bpf.h"

#define LS_VM_SHARED 0x00000008UL /* include/linux/mm.h, the same since ever */
#define LS_PAGE_SHIFT 12

struct shared_page_key {
	__u64 process;
	__u64 page;
};

/* What backs a page of a process; asked again after a while, since mappings
 * change without our knowing. */
struct shared_page {
	__u64 inode; /* 0: private memory */
	__u64 offset;
	__u64 asked_ns;
	__u32 device;
	__u32 padding;
};

#define LS_SHARED_PAGE_TTL_NS 1000000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct shared_page_key);
	__type(value, struct shared_page);
} shared_pages SEC(".maps");

static __always_inline void describe_mapping(struct vm_area_struct *area, __u64 page,
					     struct shared_page *out)
{
	struct file *file = BPF_CORE_READ(area, vm_file);

	if (!file || !(BPF_CORE_READ(area, vm_flags) & LS_VM_SHARED))
		return;
	out->inode = BPF_CORE_READ(file, f_inode, i_ino);
	out->device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	out->offset = (BPF_CORE_READ(area, vm_pgoff) << LS_PAGE_SHIFT) + page -
		      BPF_CORE_READ(area, vm_start);
}

#if LS_MODERN

struct find_context {
	__u64 page;
	struct shared_page *out;
};

static long on_mapping(struct task_struct *task, struct vm_area_struct *area,
		       struct find_context *context)
{
	struct shared_page found = {};

	describe_mapping(area, context->page, &found);
	context->out->inode = found.inode;
	context->out->device = found.device;
	context->out->offset = found.offset;
	return 0;
}

static __always_inline long find_mapping(__u64 page, struct shared_page *out)
{
	struct find_context context = { .page = page, .out = out };

	return bpf_find_vma(bpf_get_current_task_btf(), page, on_mapping, &context, 0);
}

#else

/* bpf_find_vma is there since 5.17; until 6.0 mappings are in a red-black tree
 * (524e00b36e8c took it out), walked here without the lock: a torn read gives a
 * wrong or no answer, which the age limit above repairs. */
static __always_inline long find_mapping(__u64 page, struct shared_page *out)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct rb_node *node;

	if (!bpf_core_field_exists(mm->mm_rb))
		return -1;
	node = BPF_CORE_READ(mm, mm_rb.rb_node);
	for (int depth = 0; depth < 40 && node; depth++) {
		struct vm_area_struct *area =
			(void *)node - bpf_core_field_offset(struct vm_area_struct, vm_rb);

		if (page >= BPF_CORE_READ(area, vm_end)) {
			node = BPF_CORE_READ(node, rb_right);
		} else if (page < BPF_CORE_READ(area, vm_start)) {
			node = BPF_CORE_READ(node, rb_left);
		} else {
			describe_mapping(area, page, out);
			return 0;
		}
	}
	return -1;
}

#endif

static __noinline int shared_key(__u64 process, __u64 word, struct ls_lock_key *key)
{
	struct shared_page_key page_key = {
		.process = process,
		.page = word >> LS_PAGE_SHIFT << LS_PAGE_SHIFT,
	};
	struct shared_page *page = bpf_map_lookup_elem(&shared_pages, &page_key);
	__u64 now = bpf_ktime_get_ns();

	if (!page || now - page->asked_ns > LS_SHARED_PAGE_TTL_NS) {
		struct shared_page fresh = { .asked_ns = now };

		if (find_mapping(page_key.page, &fresh) != 0) {
			count(LS_LOST_SHARED_KEY);
			if (!page)
				return 0;
		} else {
			bpf_map_update_elem(&shared_pages, &page_key, &fresh, BPF_ANY);
			page = bpf_map_lookup_elem(&shared_pages, &page_key);
			if (!page)
				return 0;
		}
	}
	if (!page->inode)
		return 0;
	key->space = page->inode;
	key->offset = page->offset + (word & ((1 << LS_PAGE_SHIFT) - 1));
	key->device = page->device;
	key->type = LS_LOCK_SHARED;
	return 0;
}

/* Fills in `key` and returns its hash, the lock's id. */
static __always_inline __u64 find_lock_key(__u64 process, __u64 word, int is_shared,
					   struct ls_lock_key *key)
{
	__u64 id;

	key->space = process;
	key->offset = word;
	key->device = 0;
	key->type = LS_LOCK_PRIVATE;
	if (is_shared)
		shared_key(process, word, key);
	id = mix(mix(mix(ls_hash_seed, key->space), key->offset),
		 (__u64)key->device << 32 | key->type);
	return id ? id : 1;
}
