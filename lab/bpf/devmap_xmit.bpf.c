/* What the kernel says of frames handed to devices by XDP redirection (tracepoint xdp:xdp_devmap_xmit). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct net_device {
	int ifindex;
} __attribute__((preserve_access_index));

struct handed {
	__u64 sent;
	__u64 drops;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* address of the device it was handed to: indexes are those of a namespace */
	__type(value, struct handed);
} handed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} indexes SEC(".maps");

/* (from device, to device, sent, drops, error) */
SEC("raw_tp/xdp_devmap_xmit")
int count_handed(struct bpf_raw_tracepoint_args *context)
{
	struct net_device *device = (void *)context->args[1];
	__u64 address = (__u64)device;
	struct handed none = {}, *handed_over = bpf_map_lookup_elem(&handed, &address);

	if (!handed_over) {
		__u32 index = BPF_CORE_READ(device, ifindex);

		bpf_map_update_elem(&indexes, &address, &index, BPF_ANY);
		bpf_map_update_elem(&handed, &address, &none, BPF_NOEXIST);
		handed_over = bpf_map_lookup_elem(&handed, &address);
		if (!handed_over)
			return 0;
	}
	__sync_fetch_and_add(&handed_over->sent, context->args[2]);
	__sync_fetch_and_add(&handed_over->drops, context->args[3]);
	return 0;
}

const char licence[] SEC("license") = "GPL";
