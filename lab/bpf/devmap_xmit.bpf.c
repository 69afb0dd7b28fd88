/* What the kernel says of frames handed to devices by XDP redirection (tracepoint xdp:xdp_devmap_xmit). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct ns_common {
	unsigned int inum;
} __attribute__((preserve_access_index));

struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

struct place {
	__u32 interface; /* its index, which is the namespace's own */
	__u32 namespace; /* inode of it */
};

struct handed {
	__u64 sent;
	__u64 drops;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct place); /* of the device it was handed to */
	__type(value, struct handed);
} handed SEC(".maps");

/* (from device, to device, sent, drops, error) */
SEC("raw_tp/xdp_devmap_xmit")
int count_handed(struct bpf_raw_tracepoint_args *context)
{
	struct net_device *device = (void *)context->args[1];
	struct handed none = {}, *handed_over;
	struct place place = {
		.interface = BPF_CORE_READ(device, ifindex),
		.namespace = BPF_CORE_READ(device, nd_net.net, ns.inum),
	};

	handed_over = bpf_map_lookup_elem(&handed, &place);
	if (!handed_over) {
		bpf_map_update_elem(&handed, &place, &none, BPF_NOEXIST);
		handed_over = bpf_map_lookup_elem(&handed, &place);
		if (!handed_over)
			return 0;
	}
	__sync_fetch_and_add(&handed_over->sent, context->args[2]);
	__sync_fetch_and_add(&handed_over->drops, context->args[3]);
	return 0;
}

const char licence[] SEC("license") = "GPL";
