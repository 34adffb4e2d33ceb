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

static __noinline struct vm_area_struct *search_rb_tree(struct mm_struct *mm, __u64 page)
{
	struct rb_node *node = BPF_CORE_READ(mm, mm_rb.rb_node);

	for (int depth = 0; depth < 40 && node; depth++) {
		struct vm_area_struct *area =
			(void *)node - bpf_core_field_offset(struct vm_area_struct, vm_rb);

		if (page >= BPF_CORE_READ(area, vm_end))
			node = BPF_CORE_READ(node, rb_right);
		else if (page < BPF_CORE_READ(area, vm_start))
			node = BPF_CORE_READ(node, rb_left);
		else
			return area;
	}
	return 0;
}

static __always_inline __u64 read_word(__u64 address)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

/* lib/maple_tree.c, mtree_range_walk(). The entry for `page` is the first whose
 * pivot is not below it; unused pivots are 0. */
static __noinline struct vm_area_struct *search_maple_tree(struct mm_struct *mm, __u64 page)
{
	__u64 encoded = (__u64)BPF_CORE_READ(mm, mm_mt.ma_root);

	/* At least 4 entries a level: deeper than any tree of 65,530 mappings. */
	for (int depth = 0; depth < 10; depth++) {
		__u64 node = encoded & ~255ULL;    /* MAPLE_NODE_MASK */
		__u32 type = encoded >> 3 & 15; /* MAPLE_NODE_TYPE_SHIFT, _MASK */
		__u64 pivots = node, slots = node;
		__u32 slot, last;

		if (type == 3) { /* maple_arange_64 */
			pivots += bpf_core_field_offset(struct maple_arange_64, pivot);
			slots += bpf_core_field_offset(struct maple_arange_64, slot);
			last = 9;
		} else if (type == 1 || type == 2) { /* maple_leaf_64, maple_range_64 */
			pivots += bpf_core_field_offset(struct maple_range_64, pivot);
			slots += bpf_core_field_offset(struct maple_range_64, slot);
			last = 15;
		} else {
			return 0;
		}
		for (slot = 0; slot < 15; slot++) {
			__u64 pivot = read_word(pivots + slot * 8);

			if (slot >= last || !pivot || pivot >= page)
				break;
		}
		encoded = read_word(slots + slot * 8);
		if ((read_word(node) & ~255ULL) == node) /* replaced: ma_dead_node() */
			return 0;
		if (type == 1)
			return (struct vm_area_struct *)encoded;
	}
	return 0;
}

/* Searches that may fail because the mappings change under them. */
#define LS_MAPPING_ATTEMPTS 4

/* The mapping of `page` in an address space, found without its lock, which
 * programs like ours can only try, and which is taken just when threads come
 * and go. A torn read gives no answer or, checked against the mapping's own
 * bounds, an old one. Global, with scalars, to be verified once. */
__noinline __u64 find_mapping(__u64 address_space, __u64 page)
{
	struct mm_struct *mm = (void *)address_space;
	struct vm_area_struct *area;

	for (int i = 0; i < LS_MAPPING_ATTEMPTS; i++) {
		if (bpf_core_field_exists(mm->mm_mt))
			area = search_maple_tree(mm, page);
		else
			area = search_rb_tree(mm, page);
		if (area && page >= BPF_CORE_READ(area, vm_start) &&
		    page < BPF_CORE_READ(area, vm_end))
			return (__u64)area;
	}
	return 0;
}

static __noinline int shared_key(struct task_struct *task, __u64 process, __u64 word,
				 struct ls_lock_key *key)
{
	struct shared_page_key page_key = {
		.process = process,
		.page = word >> LS_PAGE_SHIFT << LS_PAGE_SHIFT,
	};
	struct shared_page *page = bpf_map_lookup_elem(&shared_pages, &page_key);
	__u64 now = bpf_ktime_get_ns();

	if (!page || now - page->asked_ns > LS_SHARED_PAGE_TTL_NS) {
		struct task_struct *of = task ? task : (void *)bpf_get_current_task();
		struct shared_page fresh = { .asked_ns = now };
		struct vm_area_struct *area =
			(void *)find_mapping((__u64)BPF_CORE_READ(of, mm), page_key.page);

		if (!area) {
			count(LS_LOST_SHARED_KEY);
			if (!page)
				return 0;
		} else {
			describe_mapping(area, page_key.page, &fresh);
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

/* Fills in `key` and returns its hash, the lock's id. `task` is any of the
 * process; NULL: the current one, which costs a call only if it is needed. */
static __always_inline __u64 find_lock_key(struct task_struct *task, __u64 process, __u64 word,
					   int is_shared, struct ls_lock_key *key)
{
	__u64 id;

	key->space = process;
	key->offset = word;
	key->device = 0;
	key->type = LS_LOCK_PRIVATE;
	if (is_shared)
		shared_key(task, process, word, key);
	id = mix(mix(mix(ls_hash_seed, key->space), key->offset),
		 (__u64)key->device << 32 | key->type);
	return id ? id : 1;
}
